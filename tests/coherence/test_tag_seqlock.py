"""The seqlock: odd before, even after, and one writer at a time."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.coherence.authority import BUCKETS
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.errors import CannotOpen
from tests.servers import READY_SECONDS, poll, poll_async, stopped_writer


@pytest.fixture
def tags(tmp_path: Path) -> Iterator[TagFile]:
    opened = TagFile.open(tmp_path / "x.db-tags")
    yield opened
    opened.close()


@pytest.fixture
def seqlock(tags: TagFile, tmp_path: Path) -> Iterator[TagSeqlock]:
    lock = WriteLock(tmp_path / "x.db-lock")
    yield TagSeqlock(tags, lock, bucket_of=len)
    lock.close()


def test_a_bucket_is_odd_until_its_write_ends(tags: TagFile, seqlock: TagSeqlock) -> None:
    ticket = seqlock.begin_write({"aa", "bb", "ccc"})
    assert [tags.tag(bucket)[1] for bucket in (1, 2, 3, 4)] == [0, 1, 1, 0]
    seqlock.commit(ticket)
    assert [tags.tag(bucket)[1] for bucket in (1, 2, 3, 4)] == [0, 2, 2, 0]
    assert ticket.tag(2) == tags.tag(2)
    assert tags.commits == 1


def test_a_bucket_left_odd_is_repaired_by_the_next_write(
    tags: TagFile, seqlock: TagSeqlock
) -> None:
    seqlock.begin_write({"aa"})  # as if the writer had been killed
    ticket = seqlock.begin_write({"aa"})
    assert tags.tag(2)[1] == 1
    seqlock.commit(ticket)
    assert tags.tag(2)[1] == 2


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, 7, 2**32 - 1])
def test_a_commit_never_leads_back_to_a_sequence_that_was_in_use(
    tags: TagFile, seqlock: TagSeqlock, at: int
) -> None:
    tags.sequences[2] = at
    ticket = seqlock.begin_write({"aa"})
    raised = tags.tag(2)[1]
    assert raised % 2 and raised >= at
    seqlock.commit(ticket)
    settled = tags.tag(2)[1]
    assert settled % 2 == 0 and settled > raised
    assert ticket.tag(2) == tags.tag(2)


def test_a_rollback_never_leads_back_to_a_sequence_that_was_in_use(
    tags: TagFile, seqlock: TagSeqlock
) -> None:
    tags.sequences[2], tags.sequences[3] = 6, 7
    seqlock.roll_back(seqlock.begin_write({"aa", "bbb"}))
    assert [tags.tag(bucket)[1] for bucket in (2, 3)] == [8, 7]


def test_a_bucket_left_odd_stays_odd_after_a_rollback(tags: TagFile, seqlock: TagSeqlock) -> None:
    seqlock.begin_write({"aa"})  # its commit failed, so it may or may not be on the disk
    ticket = seqlock.begin_write({"aa", "bbb"})
    seqlock.roll_back(ticket)
    assert [tags.tag(bucket)[1] for bucket in (2, 3)] == [1, 2]
    assert tags.commits == 0
    seqlock.commit(seqlock.begin_write({"aa"}))
    assert tags.tag(2)[1] == 2


def test_the_ticket_keeps_its_own_tag_when_a_successor_commits(
    tags: TagFile, seqlock: TagSeqlock
) -> None:
    first = seqlock.begin_write({"aa"})
    seqlock.commit(first)
    second = seqlock.begin_write({"aa"})
    seqlock.commit(second)
    assert first.tag(2) != tags.tag(2)
    assert second.tag(2) == tags.tag(2)


def test_any_key_means_every_bucket(tags: TagFile, seqlock: TagSeqlock) -> None:
    ticket = seqlock.begin_write(None)
    assert all(sequence % 2 for sequence in tags.sequences)
    seqlock.commit(ticket)
    assert set(tags.sequences) == {2}
    assert len(ticket.after) == BUCKETS


def test_the_lock_keeps_other_processes_out(seqlock: TagSeqlock, tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from tenantbase.coherence.tag_seqlock import WriteLock
        print("asks", flush=True)
        with WriteLock(Path({str(tmp_path / "x.db-lock")!r})).held():
            print("has", flush=True)
    """
    with seqlock.lock():
        other = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    with other:
        assert other.stdout.readline() == "has\n"
        assert other.wait(READY_SECONDS) == 0


def test_a_lock_file_that_cannot_be_made_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match="cannot open the lock file"):
        WriteLock(tmp_path / "missing" / "x.db-lock")


@pytest.mark.parametrize("lacking", ["os.dup", "threading.Thread.start"])
async def test_failing_to_start_the_wait_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def fail(*args: object) -> None:
        if lacking == "os.dup":
            raise OSError(errno.EMFILE, "Too many open files")
        raise RuntimeError("can't start new thread")

    with closing(WriteLock(tmp_path / "x.db-lock")) as lock:
        descriptors = len(os.listdir("/dev/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(lacking, fail)
            with pytest.raises(CannotOpen, match="cannot lock .*x.db-lock: "):
                await lock.take(20)
        assert len(os.listdir("/dev/fd")) <= descriptors  # the collector may close others


async def test_a_file_system_without_locks_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with closing(WriteLock(tmp_path / "x.db-lock")) as lock:
        monkeypatch.setattr("fcntl.flock", fail)
        with pytest.raises(CannotOpen, match="cannot lock .*x.db-lock: No locks available"):
            await lock.take(20)


def test_a_new_lock_file_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        WriteLock(tmp_path / "x.db-lock").close()
    finally:
        os.umask(before)
    assert (tmp_path / "x.db-lock").stat().st_mode & 0o777 == 0o600


async def test_a_taken_lock_is_held_until_the_next_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.db-lock"
    with closing(WriteLock(path)) as lock, closing(WriteLock(path)) as other:
        await lock.take(20)
        with pytest.raises(CannotOpen):
            await other.take(0.05)
        with lock.held():
            pass
        with other.held():
            pass


async def test_waiting_for_a_stopped_lock_holder_times_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db-lock"
    before = {*threading.enumerate()}
    with stopped_writer(tmp_path / "x.db") as holder:
        with closing(WriteLock(path)) as lock:
            with pytest.raises(CannotOpen, match=f"^cannot lock {path} in 0.2 s: another process"):
                await lock.take(0.2)
        with closing(WriteLock(path)) as lock:
            waiting = asyncio.create_task(lock.take(20))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            holder.send_signal(signal.SIGCONT)
            await waiting  # queued behind the one that timed out, which must not keep the lock
            with lock.held():
                pass
        assert holder.wait(READY_SECONDS) == 0
    poll(lambda: before >= {*threading.enumerate()}, "the thread left behind has ended")


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.db-lock"
    before = {*threading.enumerate()}
    with closing(WriteLock(path)) as holder:
        with holder.held():
            gc.collect()  # files that earlier tests left would be closed meanwhile
            files = len(os.listdir("/dev/fd"))
            with closing(WriteLock(path)) as lock:
                waiting = asyncio.create_task(lock.take(20))
                await poll_async(lambda: bool({*threading.enumerate()} - before), "a thread waits")
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
        poll(lambda: before >= {*threading.enumerate()}, "the thread left behind has ended")
        assert len(os.listdir("/dev/fd")) <= files
        with closing(WriteLock(path)) as lock:
            await lock.take(20)
