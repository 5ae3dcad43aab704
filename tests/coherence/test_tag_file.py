"""The tag file: creation, sharing between processes, and removal."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tenantbase.coherence import tag_file as tags_module
from tenantbase.coherence.authority import BUCKETS
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.errors import CannotOpen
from tenantbase.owned_files import TAGS_BEGUN_MARK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db-tags"


def test_a_new_file_is_private_even_and_random(path: Path) -> None:
    tags = TagFile.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(sequence == 0 for sequence in tags.sequences)
    assert len(tags.sequences) == BUCKETS
    epoch, sequence = tags.tag(BUCKETS - 1)
    assert len(epoch) == 16 and any(epoch) and sequence == 0
    tags.close()


def test_two_openers_share_epoch_and_sequences(path: Path) -> None:
    first, second = TagFile.open(path), TagFile.open(path)
    assert first.tag(7) == second.tag(7)
    first.sequences[7] = 42
    first.count_commit()
    assert second.tag(7)[1] == 42
    assert second.commits == 1
    first.close()
    assert second.tag(7)[1] == 42, "the other's close took nothing away"
    second.close()


def test_a_lone_process_starts_a_new_epoch(path: Path) -> None:
    tags = TagFile.open(path)
    before = tags.tag(5)
    tags.sequences[5] = 3
    # As after SIGKILL: the file stays with an odd sequence, and its lock is gone.
    kept = path.read_bytes()
    tags.close()
    path.write_bytes(kept)
    again = TagFile.open(path)
    assert again.tag(5)[0] != before[0]
    assert again.tag(5)[1] == 0
    again.close()


def test_the_last_process_removes_the_files(path: Path, tmp_path: Path) -> None:
    lock = tmp_path / "x.db-lock"
    WriteLock(lock).close()
    first, second = TagFile.open(path), TagFile.open(path)
    first.close(lock)
    assert path.exists() and lock.exists()
    second.close(lock)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_replaced_is_not_removed(path: Path) -> None:
    first = TagFile.open(path)
    path.unlink()
    second = TagFile.open(path)
    assert second.tag(0)[0] != first.tag(0)[0]
    first.close()
    assert path.exists()
    second.close()


@pytest.mark.parametrize("size", [8, 100_000, 8 * (8 + BUCKETS)])
def test_an_interrupted_processs_file_is_rewritten(path: Path, size: int) -> None:
    # The first version wrote the epoch first and its mark last.
    path.write_bytes(bytes(8) + os.urandom(16)[: size - 8] + bytes(max(size - 24, 0)))
    path.chmod(0o600)
    tags = TagFile.open(path)
    assert any(tags.tag(0)[0])
    tags.close()
    assert not path.exists()


def test_an_unfinished_file_is_rewritten(path: Path) -> None:
    path.write_bytes(TAGS_BEGUN_MARK + bytes(1000))
    tags = TagFile.open(path)
    assert any(tags.tag(0)[0])
    tags.close()
    assert not path.exists()


def test_an_empty_file_may_be_foreign_and_is_left_empty(path: Path) -> None:
    path.touch()
    first = TagFile.open(path)
    kept = path.read_bytes()
    first.close()
    assert path.read_bytes() == b""
    path.write_bytes(kept)  # as after SIGKILL: the mark still says that the file was empty
    TagFile.open(path).close()
    assert path.read_bytes() == b""


def test_hard_links_to_the_old_file_do_not_change(path: Path, tmp_path: Path) -> None:
    tags = TagFile.open(path)
    kept = path.read_bytes()
    tags.close()
    path.write_bytes(kept)
    (tmp_path / "copy").hardlink_to(path)
    tags = TagFile.open(path)
    tags.sequences[1] = 2
    tags.close()
    assert not path.exists()
    assert (tmp_path / "copy").read_bytes() == kept


def test_a_missing_directory_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match="cannot open the tag file .*No such file"):
        TagFile.open(tmp_path / "missing" / "x.db-tags")


def test_every_block_of_the_file_is_there(path: Path) -> None:
    """A hole would be allocated by the first store into it, which is fatal on a full disk."""
    tags = TagFile.open(path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size
    tags.close()


def test_a_full_disk_is_reported_in_one_line(path: Path) -> None:
    code = f"""
        import resource, signal
        from pathlib import Path
        from tenantbase.errors import CannotOpen
        from tenantbase.coherence.tag_file import TagFile
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            TagFile.open(Path({str(path)!r}))
        except CannotOpen as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.startswith("cannot make the tag file"), done


def test_a_killed_process_leaves_an_odd_sequence(path: Path) -> None:
    tags = TagFile.open(path)
    code = f"""
        from pathlib import Path
        from tenantbase.coherence.tag_file import TagFile
        tags = TagFile.open(Path({str(path)!r}))
        tags.sequences[9] |= 1
        print(tags.tag(9)[0].hex(), flush=True)
        input()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        epoch = other.stdout.readline().strip()
        os.kill(other.pid, signal.SIGKILL)
    assert tags.tag(9) == (bytes.fromhex(epoch), 1)
    tags.close()


def test_many_processes_opening_and_closing_at_once_agree(path: Path) -> None:
    """All processes that have the file open at the same time see the same epoch."""
    code = f"""
        from pathlib import Path
        from tenantbase.coherence.tag_file import TagFile
        for _ in range(60):
            tags = TagFile.open(Path({str(path)!r}))
            epoch = tags.tag(1)[0]
            other = TagFile.open(Path({str(path)!r}))
            assert other.tag(1)[0] == epoch
            other.close()
            assert tags.tag(1)[0] == epoch
            tags.close()
    """
    crowd = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in crowd:
        with process:
            _, errors = process.communicate(timeout=50)
            assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("content", [b"", b"tbtags1\n", b"tbtags1\n" + bytes(4096)])
def test_an_incomplete_file_is_waited_for_and_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    path.write_bytes(content)
    with path.open() as another, monkeypatch.context() as patch:
        patch.setattr(tags_module, "_PATIENCE_SECONDS", 0.1)
        fcntl.flock(another, fcntl.LOCK_SH)  # another process is between taking its two locks
        with pytest.raises(CannotOpen, match="stays locked by another process"):
            TagFile.open(path)
    TagFile.open(path).close()  # that process has ended, so the file is rewritten


def test_a_log_made_safe_stays_so_until_a_commit_is_left_unfinished(path: Path) -> None:
    tags, other = TagFile.open(path), TagFile.open(path)
    assert not other.wal_is_safe
    tags.wal_was_made_safe()
    assert other.wal_is_safe
    tags.sequences[BUCKETS - 1] = 1
    assert not other.wal_is_safe
    tags.sequences[BUCKETS - 1] = 2
    assert other.wal_is_safe
    tags.close()
    other.close()
