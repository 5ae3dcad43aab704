"""A read-only database can be read, and no files are created beside it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.command import command, refused

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


def obey_modes() -> None:
    """In the child: make file modes effective, even if the tests run as root."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            assert libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


@pytest.fixture(params=["file", "directory", "both"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A database with one entry; the file, its directory or both are read-only."""
    directory = tmp_path / "data"
    directory.mkdir()
    database = directory / "x.db"
    assert command("set", "--database", str(database), "k", "[1]").returncode == 0
    if request.param != "directory":
        database.chmod(0o400)
    if request.param != "file":
        directory.chmod(0o500)
    yield database
    directory.chmod(0o700)


def run(database: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    return command(*args, "--database", str(database), preexec_fn=obey_modes)


def test_it_is_read(database: Path) -> None:
    before = database.read_bytes()
    assert run(database, "get", "k").stdout == b"[1]\n"
    assert refused(run(database, "get", "x"), "there is no key 'x'")
    assert run(database, "list").stdout.startswith(b'{"key":"k","value":[1],')
    assert run(database, "list", "--prefix", "x").stdout == b""
    assert run(database, "export").stdout == run(database, "list").stdout
    assert list(database.parent.iterdir()) == [database]
    assert database.read_bytes() == before


@pytest.mark.parametrize("args", [("set", "k", "2"), ("delete", "k"), ("import",)])
def test_a_read_only_database_is_not_written(database: Path, args: tuple[str, ...]) -> None:
    assert refused(run(database, *args), str(database), "read-only")
    assert list(database.parent.iterdir()) == [database]
    assert run(database, "get", "k").stdout == b"[1]\n"


def test_an_unreadable_database_is_an_error(database: Path) -> None:
    database.chmod(0)
    assert refused(run(database, "get", "k"), f"cannot open {database}: Permission denied")


def test_beside_a_server_that_writes(tmp_path: Path) -> None:
    """Entries that are only in the log are visible, and the server continues."""
    directory = tmp_path / "data"
    directory.mkdir()
    with AppServer(directory / "x.db") as server:
        server.ask("POST", "/set-value", b'{"key": "k", "value": 1}')
        directory.chmod(0o500)
        try:
            assert run(server.database, "get", "k").stdout == b"1\n"
            server.ask("POST", "/set-value", b'{"key": "k", "value": 2}')
            assert run(server.database, "get", "k").stdout == b"2\n"
            server.kill()
            assert run(server.database, "get", "k").stdout == b"2\n"
            directory.chmod(0o700)
            Path(f"{server.database}-shm").unlink()
            directory.chmod(0o500)
            assert refused(run(server.database, "get", "k"), f"{server.database}-wal")
        finally:
            directory.chmod(0o700)
    assert command("get", "--database", str(server.database), "k").stdout == b"2\n"


@pytest.mark.parametrize("kind", ["text", "foreign"])
def test_it_is_not_our_database(tmp_path: Path, kind: str) -> None:
    database = tmp_path / "x.db"
    if kind == "text":
        database.write_text("notes\n")
    else:
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t (x)')"
        subprocess.run([sys.executable, "-c", code, database], check=True)
    database.chmod(0o400)
    before = database.read_bytes()
    assert refused(run(database, "get", "k"), str(database))
    assert list(tmp_path.iterdir()) == [database] and database.read_bytes() == before


def test_a_concurrent_writer_is_noticed(database: Path) -> None:
    """Without locks, another process may write during the read; then the result is not trusted."""
    code = """if True:
        import os, sys
        from tenantbase.errors import StoreUnavailable
        from tenantbase.interfaces.sqlite.open_read_only import open_readonly
        try:
            with open_readonly(sys.argv[1]):
                os.utime(sys.argv[1])
        except StoreUnavailable as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, database], capture_output=True, text=True, timeout=30
    )
    assert "another process wrote" in done.stdout, done.stderr
