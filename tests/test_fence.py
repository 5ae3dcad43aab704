"""The fence: odd before, even after, and one writer at a time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.errors import CannotOpen
from tenantbase.fence import TagFence, WriteLock
from tenantbase.tags import BUCKETS, TagFile


@pytest.fixture
def tags(tmp_path: Path) -> Iterator[TagFile]:
    opened = TagFile.open(tmp_path / "x.db-tags")
    yield opened
    opened.close()


@pytest.fixture
def fence(tags: TagFile, tmp_path: Path) -> Iterator[TagFence]:
    lock = WriteLock(tmp_path / "x.db-lock")
    yield TagFence(tags, lock, bucket_of=len)
    lock.close()


def test_a_bucket_is_odd_until_it_is_lowered(tags: TagFile, fence: TagFence) -> None:
    ticket = fence.raise_({"aa", "bb", "ccc"})
    assert [tags.tag(bucket)[1] for bucket in (1, 2, 3, 4)] == [0, 1, 1, 0]
    fence.lower(ticket)
    assert [tags.tag(bucket)[1] for bucket in (1, 2, 3, 4)] == [0, 2, 2, 0]
    assert ticket.tag(2) == tags.tag(2)
    assert tags.commits == 1


def test_a_bucket_left_odd_is_repaired_by_the_next_write(tags: TagFile, fence: TagFence) -> None:
    fence.raise_({"aa"})  # and killed
    ticket = fence.raise_({"aa"})
    assert tags.tag(2)[1] == 1
    fence.lower(ticket)
    assert tags.tag(2)[1] == 2


def test_the_ticket_keeps_its_own_tag_when_a_successor_commits(
    tags: TagFile, fence: TagFence
) -> None:
    first = fence.raise_({"aa"})
    fence.lower(first)
    second = fence.raise_({"aa"})
    fence.lower(second)
    assert first.tag(2) != tags.tag(2)
    assert second.tag(2) == tags.tag(2)


def test_any_key_means_every_bucket(tags: TagFile, fence: TagFence) -> None:
    ticket = fence.raise_(None)
    assert all(sequence % 2 for sequence in tags.sequences)
    fence.lower(ticket)
    assert set(tags.sequences) == {2}
    assert len(ticket.after) == BUCKETS


def test_the_lock_keeps_other_processes_out(fence: TagFence, tmp_path: Path) -> None:
    code = f"""
        from pathlib import Path
        from tenantbase.fence import WriteLock
        print("asks", flush=True)
        with WriteLock(Path({str(tmp_path / "x.db-lock")!r})).held():
            print("has", flush=True)
    """
    with fence.lock():
        other = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    with other:
        assert other.stdout.readline() == "has\n"
        assert other.wait(10) == 0


def test_a_lock_file_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match="cannot open the lock file"):
        WriteLock(tmp_path / "missing" / "x.db-lock")
