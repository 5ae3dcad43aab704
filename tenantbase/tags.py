"""The tag file: what tells a reader whether a cached frame is still the truth.

Beside the database lies a file that every process on it maps into its memory. It holds a
random *epoch* and one 64-bit *sequence* for each of 65,536 buckets of keys. A sequence is even
at rest and odd while a write to its bucket is in flight: a seqlock, shared by processes
(``coherence.md`` in the design notes; ``DESIGN.md`` tells it in short). A process that finds
itself alone makes the file new, with a new epoch, so frames of an earlier life never match.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tenantbase.errors import CannotOpen

BUCKETS: Final = 65_536
Tag = tuple[bytes, int]  # (epoch, sequence)

_MAGIC: Final = b"tbtags1\n"
_EPOCH: Final = slice(8, 24)
_COMMITS: Final = 3  # the index of a 64-bit word, as is:
_LOG_SAFE: Final = 4
_SEQUENCES: Final = 8
_SIZE: Final = 8 * (_SEQUENCES + BUCKETS)
_PATIENCE: Final = 10.0  # seconds for another process to finish opening or closing the file


class TagFile:
    """The mapped file. A shared ``flock`` on it is held for as long as it is open.

    A sequence is read and written as one aligned 64-bit word, so no process ever sees half of
    one. The system calls between the steps of a write (locks, fsync) order its stores.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")
        self.sequences = self._words[_SEQUENCES:]

    @classmethod
    def open(cls, path: Path) -> TagFile:
        """Open the file, making it new if no other process has it open.

        Open it after any fork: a lock belongs to the open file, which a fork would share.

        Raises:
            CannotOpen: the file cannot be made, or another process holds it exclusively.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise CannotOpen(f"cannot open the tag file {path}: {error.strerror}") from error
            if _lock(fd, fcntl.LOCK_EX) and _is_at(fd, path):
                try:
                    _renew(fd)
                except OSError as error:
                    os.close(fd)
                    raise CannotOpen(
                        f"cannot make the tag file {path}: {error.strerror}"
                    ) from error
            # Turning one lock into the other is not atomic: between the two another process
            # may have been alone, and even have removed the file. Hence the check afterwards.
            if _lock(fd, fcntl.LOCK_SH) and _is_at(fd, path) and _is_complete(fd):
                return cls(path, fd)
            os.close(fd)
            if time.monotonic() > deadline:
                raise CannotOpen(f"the tag file {path} stays locked by another process")
            time.sleep(0.01)

    def tags(self, buckets: Sequence[int]) -> list[Tag]:
        """The (epoch, sequence) of each bucket. An odd sequence: a write is in flight."""
        # Never remembered from one call to the next: the pairs must be of this moment. The epoch
        # cannot change while this file is open, so they may share it.
        epoch, sequences = self._map[_EPOCH], self.sequences
        return [(epoch, sequences[bucket]) for bucket in buckets]

    def tag(self, bucket: int) -> Tag:
        """The tag of one bucket."""
        (tag,) = self.tags((bucket,))
        return tag

    @property
    def commits(self) -> int:
        """Grows with every commit of any process: a cheap sign that something changed."""
        return self._words[_COMMITS]

    def count_commit(self) -> None:
        """Add one to ``commits``; the caller holds the write lock."""
        self._words[_COMMITS] += 1

    @property
    def log_is_safe(self) -> bool:
        """Whether the database's log was made safe, and no commit was left unfinished since.

        Ask with the write lock held. Where all who had the database open may have ended,
        though not all who have this file, an odd sequence tells of a commit that may have failed.
        """
        return bool(self._words[_LOG_SAFE]) and not any(each & 1 for each in self.sequences)

    def log_was_made_safe(self) -> None:
        """Remember it for as long as any process has this file open."""
        self._words[_LOG_SAFE] = 1

    def close(self, *companions: Path) -> None:
        """Unmap the file; the last process removes it, and ``companions`` with it."""
        self.sequences.release()
        self._words.release()
        self._map.close()
        if _lock(self._fd, fcntl.LOCK_EX) and _is_at(self._fd, self.path):
            for path in (*companions, self.path):
                path.unlink(missing_ok=True)
        os.close(self._fd)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _renew(fd: int) -> None:
    os.ftruncate(fd, 0)  # nobody maps it: everyone who does holds the shared lock
    # Written, not left as a hole: where a map has no block behind it, the first store to it on a
    # full disk kills the process (SIGBUS).
    zeros = memoryview(bytes(_SIZE))
    while zeros:
        zeros = zeros[os.pwrite(fd, zeros, _SIZE - len(zeros)) :]
    os.pwrite(fd, os.urandom(16), 8)
    os.pwrite(fd, _MAGIC, 0)  # last: its presence says that the file is complete


def _is_complete(fd: int) -> bool:
    return os.fstat(fd).st_size == _SIZE and os.pread(fd, len(_MAGIC), 0) == _MAGIC
