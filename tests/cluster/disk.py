"""A small disk for the files of one server, which can be filled. Only inside ``network.isolated``."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

_MEGABYTES: Final = 512
_BALLAST: Final = "ballast"


class Disk:
    """A disk in memory, mounted on a directory until it is closed.

    Args:
        directory: its owner owns the disk.
    """

    def __init__(self, directory: Path) -> None:
        owner = directory.stat()
        options = f"size={_MEGABYTES}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], check=True)
        self._directory = directory

    def fill(self) -> None:
        """Use up all free space."""
        with open(self._directory / _BALLAST, "ab") as file:
            for size in (1 << 20, 1 << 16, 1 << 12):
                try:
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Free the space again."""
        with suppress(FileNotFoundError):
            (self._directory / _BALLAST).unlink()

    def close(self) -> None:
        """Unmount it, with everything on it."""
        subprocess.run(["umount", self._directory], check=True)
