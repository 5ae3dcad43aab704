"""The seqlock around a commit: the write lock, and the sequences of the buckets it touches."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tenantbase.coherence.authority import BUCKETS, Tag
from tenantbase.coherence.tag_file import TagFile
from tenantbase.errors import CannotOpen
from tenantbase.owned_files import LOCK_MARK, MARK_BYTES, foreign, open_beside


class WriteLock:
    """One writer at a time, across all processes: ``flock`` on a file of its own.

    Writers wait in the kernel's queue. The lock also keeps two processes from committing or
    checkpointing at once, which can corrupt a WAL file before SQLite 3.51.3.
    Open it after any fork, for the reason given in ``TagFile.open``.

    Args:
        like: the database; a new file gets its mode and owner.

    Raises:
        CannotOpen: the file is not ours, or cannot be made.
    """

    def __init__(self, path: Path, like: Path | None = None) -> None:
        self.path = path
        self._fd, _ = open_beside(path, "lock file", LOCK_MARK, like)
        # An empty file may be the first version's, or the user's: locking does not change it, and
        # it is left in place.
        if os.pread(self._fd, MARK_BYTES, 0) not in (LOCK_MARK, b""):
            os.close(self._fd)
            raise foreign(path, "lock file")

    async def take(self, seconds: float) -> None:
        """Wait for the lock, at most ``seconds``, and hold it until the end of the next ``held``.
        That ``held`` does not wait: ``flock`` grants a lock again to the open file that has it.

        Raises:
            CannotOpen: the lock was not granted; names the file. The object can only be closed.
        """
        # Don't poll: the kernel queues waiters in order, and a poller could starve. A thread that
        # waits there cannot be interrupted, so on a timeout it is left behind. It locks this
        # object's open file through a descriptor of its own, and closes that once it has the lock.
        # If it is the last descriptor, this releases the lock.
        taken: Future[None] = Future()
        taken.set_running_or_notify_cancel()  # the thread continues if we are cancelled
        try:
            _start_waiting(os.dup(self._fd), taken)
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(taken)
        except TimeoutError:
            raise CannotOpen(
                f"cannot lock {self.path} in {seconds:g} s: another process holds it"
            ) from None
        except OSError as error:
            raise CannotOpen(f"cannot lock {self.path}: {error.strerror}") from error

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


def _start_waiting(fd: int, taken: Future[None]) -> None:
    try:
        threading.Thread(target=_wait, args=(fd, taken), daemon=True).start()
    except RuntimeError as error:
        os.close(fd)
        raise OSError(errno.EAGAIN, "no thread can be started") from error


def _wait(fd: int, taken: Future[None]) -> None:
    """Lock an open file through a duplicate descriptor, then close the duplicate."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        taken.set_exception(error)
    else:
        taken.set_result(None)
    finally:
        os.close(fd)


class TagTicket:
    """The tags that the buckets of one transaction get when it has ended.

    This writer keeps them. It must not read them from the file later, when they may be those of a
    later writer: an older value sealed under them would pass for the newest.
    """

    __slots__ = ("epoch", "after", "in_doubt")

    def __init__(self, epoch: bytes, after: dict[int, int], in_doubt: Collection[int]) -> None:
        self.epoch = epoch
        self.after = after
        self.in_doubt = in_doubt  # buckets in which an earlier transaction's outcome is unknown

    def tag(self, bucket: int) -> Tag:
        """The tag under which what this transaction wrote may be cached."""
        return self.epoch, self.after[bucket]


class TagSeqlock:
    """Makes the sequences of the touched buckets odd before COMMIT, and even after it."""

    def __init__(
        self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
    ) -> None:
        self._tags = tags
        self._bucket_of = bucket_of
        self.lock: Callable[[], AbstractContextManager[None]] = write_lock.held

    def begin_write(self, keys: Collection[str] | None) -> TagTicket:
        sequences = self._tags.sequences
        touched = range(BUCKETS) if keys is None else {self._bucket_of(key) for key in keys}
        after: dict[int, int] = {}
        in_doubt = set()
        for bucket in touched:
            before = sequences[bucket]
            if before % 2:  # an earlier writer was killed in flight, or its commit failed
                in_doubt.add(bucket)
            odd = before | 1
            sequences[bucket] = odd
            after[bucket] = odd + 1
        epoch, _ = self._tags.tag(0)
        return TagTicket(epoch, after, in_doubt)

    def commit(self, ticket: TagTicket) -> None:
        self._settle(ticket, ticket.after)
        self._tags.count_commit()

    def roll_back(self, ticket: TagTicket) -> None:
        # Unknown outcomes stay unknown: only a commit overwrites an earlier transaction in the
        # write-ahead log, and until then a recovery may still find it.
        self._settle(ticket, ticket.after.keys() - ticket.in_doubt)

    def _settle(self, ticket: TagTicket, buckets: Iterable[int]) -> None:
        for bucket in buckets:
            self._tags.sequences[bucket] = ticket.after[bucket]
