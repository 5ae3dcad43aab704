"""How a backup makes way for servers on the same processors and the same disk.

A low priority is not enough. The scheduler may compare it only with processes of the same session,
and a disk that is busy with one process's writes delays the commits of all others.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Final

_LEAST_PAUSE_SECONDS: Final = 0.001
_PIECE_BYTES: Final = 4 << 20
_LEAST_DUE_BYTES: Final = 16 << 20
_DUE_SHARE: Final = 16  # so each page is written at most about this often, however large the file


class Pace:
    """Pauses that are as long as the work between them, so that half of the time is left to others."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def rest(self) -> None:
        """Pause for as long as the work since the last pause has taken."""
        time.sleep(max(time.monotonic() - self._since, _LEAST_PAUSE_SECONDS))
        self._since = time.monotonic()


def due_bytes(size: int) -> int:
    """How much to add to a file of this size, in bytes, before it is synced again.

    Less would mean more work: the pages of an index are changed in random order, so each sync may
    have to write nearly all of them.
    """
    return max(_LEAST_DUE_BYTES, size // _DUE_SHARE)


def sync_in_pieces(fd: int, pace: Pace) -> None:
    """Make a file durable, piece by piece: one large sync would delay the commits of others.

    Args:
        fd: open for reading and writing.

    Raises:
        OSError: it cannot be written.
    """
    size = os.fstat(fd).st_size
    if not size:
        return
    # msync(2) syncs a range of the file, including what write(2) has changed.
    with mmap.mmap(fd, size) as pages:
        for at in range(0, size, _PIECE_BYTES):
            pages.flush(at, min(_PIECE_BYTES, size - at))
            pace.rest()
