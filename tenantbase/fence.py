"""The fence around a commit: the write lock, and the sequences of the buckets it touches."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.store import Ticket
from tenantbase.tags import BUCKETS, Tag, TagFile


class WriteLock:
    """One writer at a time, over all processes: ``flock`` on a file of its own.

    Writers wait in the kernel's queue. It also keeps two processes from committing or
    checkpointing at once, which can corrupt a WAL file before SQLite 3.51.3.
    Open it after any fork, for the reason given in ``TagFile.open``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotOpen(f"cannot open the lock file {path}: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it; blocks the calling thread."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


class TagTicket:
    """The tags that the buckets of one transaction get when it has ended.

    They are this writer's own: read later from the file they might be a successor's, and
    a frame of an older value under them would pass for the newest.
    """

    __slots__ = ("epoch", "after")

    def __init__(self, epoch: bytes, after: dict[int, int]) -> None:
        self.epoch = epoch
        self.after = after

    def tag(self, bucket: int) -> Tag:
        """The tag under which what this transaction wrote may be cached."""
        return self.epoch, self.after[bucket]


class TagFence:
    """Makes the sequences of the touched buckets odd before COMMIT, and even after its end."""

    def __init__(
        self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
    ) -> None:
        self._tags = tags
        self._bucket_of = bucket_of
        self.lock: Callable[[], AbstractContextManager[None]] = write_lock.held

    def raise_(self, keys: Collection[str] | None) -> TagTicket:
        sequences = self._tags.sequences
        touched = range(BUCKETS) if keys is None else {self._bucket_of(key) for key in keys}
        after: dict[int, int] = {}
        for bucket in touched:
            # |, not +: it is odd already where an earlier writer was killed in flight.
            odd = sequences[bucket] | 1
            sequences[bucket] = odd
            after[bucket] = odd + 1
        epoch, _ = self._tags.tag(0)
        return TagTicket(epoch, after)

    def lower(self, ticket: Ticket) -> None:
        assert isinstance(ticket, TagTicket)
        sequences = self._tags.sequences
        for bucket, even in ticket.after.items():
            sequences[bucket] = even
        self._tags.count_commit()
