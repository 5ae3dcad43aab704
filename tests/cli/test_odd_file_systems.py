"""File systems that lack what the database needs: one clear line, and no files are left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import command, refused

INJECTED = {
    # All these calls are for the tag file: Python itself needs neither locks nor shared maps.
    "flock:error=ENOLCK": ("cannot lock the tag file", "No locks available", "flock"),
    "flock:error=EOPNOTSUPP": ("cannot lock the tag file", "flock"),
    "mmap:error=ENODEV": ("cannot map the tag file", "No such device", "shared memory maps"),
}


@pytest.mark.parametrize("exists", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("args", [("set", "k", "2"), ("import",), ("get", "k"), ("export",)])
@pytest.mark.parametrize("injected", INJECTED)
def test_the_lacking_feature_is_named(
    tmp_path: Path, injected: str, args: tuple[str, ...], exists: bool
) -> None:
    database = tmp_path / "x.db"
    if exists or args[0] in ("get", "export"):
        assert command("set", "--database", str(database), "k", "1").returncode == 0
    before = list(tmp_path.iterdir())
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{database}-tags")
    done = command(*args, "--database", str(database), before=(*strace, "-e", f"inject={injected}"))
    assert refused(done, f"{database}-tags", *INJECTED[injected])
    assert list(tmp_path.iterdir()) == before


def test_a_lock_file_that_cannot_be_locked(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{database}-lock")
    done = command(
        *("set", "--database", str(database), "k", "1"),
        before=(*strace, "-e", "inject=flock:error=ENOLCK"),
    )
    assert refused(done, f"cannot lock {database}-lock: No locks available")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_refuses_new_files() -> None:
    """The kernel reports that the file does not exist, as if another process had removed it."""
    database = Path("/proc/x.db")
    done = command("set", "--database", str(database), "k", "1")
    assert refused(done, f"{database}-tags", "No such file or directory")
