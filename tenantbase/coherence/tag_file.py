"""The tag file: the authority of one machine, in shared memory.

Every process on a database maps a file beside it into its memory. It holds a random *epoch* and
one 64-bit *sequence* for each of 65,536 buckets of keys. A sequence is even at rest and odd while
a write to its bucket is in flight: a seqlock shared by processes (``DESIGN.md`` explains it). The
first process to open the file rewrites it with a new epoch, so items sealed earlier never match.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tenantbase.coherence.authority import BUCKETS, Tag, Tags
from tenantbase.errors import CannotOpen, InUse
from tenantbase.owned_files import (
    MARK_BYTES,
    TAGS_BEGUN_MARK,
    TAGS_MARK,
    foreign,
    open_beside,
    remove_marked,
)

_EPOCH: Final = slice(8, 24)
# Indices of 64-bit words.
_COMMITS: Final = 3
_WAL_SAFE: Final = 4
_WAS_EMPTY: Final = 5
_SEQUENCES: Final = 8
_SIZE_BYTES: Final = 8 * (_SEQUENCES + BUCKETS)
_PATIENCE_SECONDS: Final = 10.0  # for another process to finish opening or closing the file
# Another process may be about to write its mark to an empty file; wait this long.
_BEGINNING_SECONDS: Final = 0.5


class TagFile:
    """The mapped file. It is held open under a shared ``flock``.

    A sequence is read and written as one aligned 64-bit word, so no process ever sees half of
    one. The system calls between the steps of a write (locks, fsync) order its stores.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, _SIZE_BYTES)
        self._words = memoryview(self._map).cast("Q")
        self.sequences = self._words[_SEQUENCES:]

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> TagFile:
        """Open the file, rewriting it if no other process has it open.

        Open it after any fork: a lock belongs to the open file, which a fork would share.

        Args:
            like: the database; a new file gets its mode and owner.

        Raises:
            CannotOpen: the file is not ours, or cannot be made, locked or mapped, or another
                process holds it exclusively.
        """
        begun = time.monotonic()
        while True:
            fd, made = open_beside(path, "tag file", TAGS_BEGUN_MARK, like)
            try:
                waited = time.monotonic() - begun
                if _join(
                    fd, path, take_empty=waited > min(_BEGINNING_SECONDS, _PATIENCE_SECONDS / 2)
                ):
                    return cls(path, fd)
            except OSError as error:
                _give_up(fd, path, made)
                raise CannotOpen(_failure(path, error)) from error
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            if waited > _PATIENCE_SECONDS:
                raise CannotOpen(f"the tag file {path} stays locked by another process")
            time.sleep(0.01)

    def tags(self, buckets: Sequence[int]) -> Tags:
        """The tag of each bucket, None while a write to it is in flight. See ``Authority``."""
        # Never cached between calls: the tags must be current. The epoch cannot change while this
        # file is open, so they may share it. Each sequence is loaded once, or it could become odd
        # between the test and its use.
        epoch, sequences = self._map[_EPOCH], self.sequences
        return [
            None if (sequence := sequences[bucket]) & 1 else (epoch, sequence) for bucket in buckets
        ]

    parallel = 1

    def remembered(self, buckets: Sequence[int], max_age: float) -> None:
        """None: tags are immediate. See ``Authority``."""

    async def poll(self) -> None:
        """Nothing to do: the counter is in shared memory. See ``Authority``."""

    def lost(self, version: int) -> bool:
        """False: what was committed here stays. See ``Authority``."""
        return False

    async def drained(self) -> None:
        """Nothing to wait for. See ``Authority``."""

    def tag(self, bucket: int) -> Tag:
        """One bucket's tag as it is in the file; its sequence is odd while a write is in flight."""
        return self._map[_EPOCH], self.sequences[bucket]

    @property
    def commits(self) -> int:
        """Grows with every commit of any process: a cheap sign that something changed."""
        return self._words[_COMMITS]

    def count_commit(self) -> None:
        """Add one to ``commits``; the caller holds the write lock."""
        self._words[_COMMITS] += 1

    @property
    def wal_is_safe(self) -> bool:
        """Whether the write-ahead log was made safe, and no commit was left unfinished since.

        Call it with the write lock held. If every process that had the database open has ended
        while another still has this file, an odd sequence indicates a commit that may have failed.
        """
        return bool(self._words[_WAL_SAFE]) and not any(each & 1 for each in self.sequences)

    def wal_was_made_safe(self) -> None:
        """Record that the log is safe, for as long as any process has this file open."""
        self._words[_WAL_SAFE] = 1

    def is_alone(self) -> bool:
        """Whether no other process has the file open.

        Call it before using the file, with the write lock held.

        Raises:
            CannotOpen: another process has removed the file meanwhile, or keeps it locked.
        """
        alone = _lock(self._fd, fcntl.LOCK_EX)
        # Converting a lock without waiting gives it up first. Another process may have rewritten
        # the file in between, which is harmless as long as this process has not used it.
        until = time.monotonic() + _PATIENCE_SECONDS
        while not _lock(self._fd, fcntl.LOCK_SH):
            if time.monotonic() > until:
                raise CannotOpen(f"the tag file {self.path} stays locked by another process")
            time.sleep(0.01)
        if not _is_at(self._fd, self.path):
            raise CannotOpen(f"the tag file {self.path} was removed by another process; try again")
        return alone

    def close(self, *companions: Path) -> None:
        """Unmap the file. The last process removes it, and those of ``companions`` that are ours."""
        was_empty = bool(self._words[_WAS_EMPTY])
        self.sequences.release()
        self._words.release()
        self._map.close()
        if _lock(self._fd, fcntl.LOCK_EX) and _is_at(self._fd, self.path):
            for path in companions:
                remove_marked(path)
            _remove(self._fd, self.path, was_empty)
        os.close(self._fd)


@contextmanager
def alone(path: Path, like: Path) -> Iterator[None]:
    """Keep every process from opening the database for as long as the block lasts.

    Raises:
        InUse: another process has it open.
        CannotOpen: the file is not ours, or cannot be made or locked.
    """
    fd, _ = open_beside(path, "tag file", TAGS_BEGUN_MARK, like)
    try:
        try:
            contents = _look(fd, path)
            taken = _lock(fd, fcntl.LOCK_EX) and _is_at(fd, path)
        except OSError as error:
            raise CannotOpen(_failure(path, error)) from error
        if not taken:
            raise InUse(f"another process has {like} open; stop it first")
        try:
            yield
        finally:
            _remove(fd, path, was_empty=not contents or _was_empty(contents))
    finally:
        os.close(fd)


def _join(fd: int, path: Path, take_empty: bool) -> bool:
    """Get the shared lock of a complete file, rewriting it if no other process has it open.

    False: another process is opening or closing it; open the file again.
    """
    contents = _look(fd, path)
    if _lock(fd, fcntl.LOCK_EX) and _is_at(fd, path):
        if os.fstat(fd).st_nlink > 1:
            # Some backups are made of hard links. Such a copy must not change when our file does.
            remove_marked(path)
            return False
        contents = _look(fd, path)
        if not contents and not take_empty:
            return False
        _renew(fd, was_empty=not contents or _was_empty(contents))
    # Converting a lock is not atomic: in between, another process may have had the file to itself,
    # and may even have removed it. Hence the checks afterwards.
    return _lock(fd, fcntl.LOCK_SH) and _is_at(fd, path) and _is_complete(fd)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _look(fd: int, path: Path) -> bytes:
    """The head of the file; empty if it is. Raises CannotOpen if the file is not ours."""
    head = os.pread(fd, 8 * _SEQUENCES, 0)
    if not head or head[:MARK_BYTES] in (TAGS_MARK, TAGS_BEGUN_MARK):
        return head
    # The first version wrote its mark last. Interrupted, or on a full disk, it left a file without
    # a mark: zeros, except for the epoch.
    found = os.fstat(fd)
    if found.st_size <= _SIZE_BYTES and found.st_mode & 0o777 == 0o600:
        contents = bytearray(os.pread(fd, _SIZE_BYTES, 0))
        contents[_EPOCH] = b""
        if not any(contents):
            return head
    raise foreign(path, "tag file")


def _was_empty(contents: bytes) -> bool:
    return any(contents[8 * _WAS_EMPTY : 8 * _WAS_EMPTY + 8])


def _renew(fd: int, was_empty: bool) -> None:
    """Write the whole file. No process maps it: those that do hold the shared lock.

    Args:
        was_empty: there was an empty file before. It may belong to the user, so an empty one is
            left behind on closing.
    """
    os.pwrite(fd, TAGS_BEGUN_MARK, 0)
    # Write zeros instead of leaving a hole: on a full disk, a store to a mapped page without a
    # block behind it kills the process (SIGBUS). Write in place: blocks freed by truncating might
    # not be available again.
    contents = bytearray(_SIZE_BYTES)
    contents[_EPOCH] = os.urandom(16)
    contents[8 * _WAS_EMPTY] = was_empty
    rest = memoryview(contents)[MARK_BYTES:]
    while rest:
        rest = rest[os.pwrite(fd, rest, _SIZE_BYTES - len(rest)) :]
    os.ftruncate(fd, _SIZE_BYTES)
    os.pwrite(fd, TAGS_MARK, 0)  # last: its presence says that the file is complete


def _is_complete(fd: int) -> bool:
    return os.fstat(fd).st_size == _SIZE_BYTES and os.pread(fd, MARK_BYTES, 0) == TAGS_MARK


def _remove(fd: int, path: Path, was_empty: bool) -> None:
    """Remove the file. This process holds its exclusive lock."""
    if was_empty:
        os.ftruncate(fd, 0)
    else:
        path.unlink(missing_ok=True)


def _give_up(fd: int, path: Path, made: bool) -> None:
    """Close a file that cannot be used, and remove it if this process made it."""
    try:
        # Without locks no other process can use the file either.
        if made or (_lock(fd, fcntl.LOCK_EX) and _is_at(fd, path)):
            contents = _look(fd, path)
            if contents:
                _remove(fd, path, _was_empty(contents))
    except (OSError, CannotOpen):
        pass
    finally:
        os.close(fd)


_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


def _failure(path: Path, error: OSError) -> str:
    if error.errno in _NO_LOCKS:
        return f"cannot lock the tag file {path}: {error.strerror}; the file system has no flock"
    if error.errno == errno.ENODEV:
        return (
            f"cannot map the tag file {path}: {error.strerror}; the file system has no shared"
            " memory maps"
        )
    return f"cannot make the tag file {path}: {error.strerror}"
