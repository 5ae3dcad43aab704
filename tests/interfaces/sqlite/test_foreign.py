"""Files that are not ours: never written, truncated or removed, and no link is followed."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.command import invoked, refused

pytestmark = pytest.mark.integration

TAGS_BYTES = 8 * (8 + 65_536)
OURS = ("-tags", "-lock")
RESERVE = "-reserve"
SQLITES = ("-wal", "-shm", "-journal")


def snapshot(directory: Path) -> dict[str, tuple[int, int, object]]:
    """Every name in a directory, with its contents."""
    found: dict[str, tuple[int, int, object]] = {}
    for path in directory.iterdir():
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[path.name] = (status.st_mode, status.st_ino, content)
    return found


def make_text(path: Path) -> None:
    path.write_text("notes\n")


def make_long_text(path: Path) -> None:
    path.write_bytes(b"notes\n" * 100_000)


def make_text_of_the_size_of_a_tag_file(path: Path) -> None:
    path.write_bytes(b"n" * TAGS_BYTES)


def make_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("precious\n")
    path.symlink_to(target)


def make_link_to_an_empty_file(path: Path) -> None:
    target = path.parent / "target"
    target.touch()
    path.symlink_to(target)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "missing")


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(path.parent, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


FOREIGN = [
    make_text,
    make_long_text,
    make_text_of_the_size_of_a_tag_file,
    make_link,
    make_link_to_an_empty_file,
    make_dangling_link,
    make_directory,
    make_fifo,
    make_socket,
]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("suffix", [*OURS, *SQLITES])
@pytest.mark.parametrize("make", FOREIGN)
def test_foreign_files_are_named_and_untouched(
    tmp_path: Path, make: Callable[[Path], None], suffix: str, exists: bool
) -> None:
    database = tmp_path / "notes"
    if exists:
        assert invoked("set", "--database", str(database), "k", "0").returncode == 0
    make(Path(f"{database}{suffix}"))
    before = snapshot(tmp_path)
    done = invoked("set", "--database", str(database), "k", "1")
    assert refused(done, f"{database}{suffix}", "in the way")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("suffix", OURS)
def test_an_empty_file_stays(tmp_path: Path, suffix: str) -> None:
    """The first version could leave one, so it is accepted; but it may be a user's."""
    database = tmp_path / "notes"
    Path(f"{database}{suffix}").touch()
    for value in ("1", "2"):
        assert invoked("set", "--database", str(database), "k", value).returncode == 0
    assert Path(f"{database}{suffix}").read_bytes() == b""
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("make", FOREIGN)
def test_a_foreign_reserve_file_means_no_reserve(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    database = tmp_path / "notes"
    make(Path(f"{database}{RESERVE}"))
    before = snapshot(tmp_path)
    for value in ("1", "2"):
        assert invoked("set", "--database", str(database), "k", value).returncode == 0
    database.unlink()
    assert snapshot(tmp_path) == before


def test_files_of_a_killed_server_are_removed(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        server.ask("POST", "/set-value", b'{"key": "k", "value": 1}')
        server.kill()
        assert {"x.db-tags", "x.db-lock"} <= {path.name for path in tmp_path.iterdir()}
        assert invoked("get", "--database", str(server.database), "k").stdout == b"1\n"
        assert list(tmp_path.iterdir()) == [server.database]


def foreign_database(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def in_a_log_alone(path: Path) -> None:
    """A database whose tables are in its write-ahead log, as its killed owner left it."""
    owner = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.execute('PRAGMA journal_mode = WAL'); c.execute('CREATE TABLE t (x)');"
            "os.kill(os.getpid(), signal.SIGKILL)",
            str(path),
        ]
    )
    assert owner.wait(20) == -signal.SIGKILL


def in_a_transaction(path: Path) -> None:
    """A database whose owner was killed in a transaction: it has a hot rollback journal."""
    foreign_database(path, "CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(1000000));")
    owner = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.execute('PRAGMA cache_size = 1'); c.execute('UPDATE t SET x = zeroblob(1000000)');"
            "os.kill(os.getpid(), signal.SIGKILL)",
            str(path),
        ]
    )
    assert owner.wait(20) == -signal.SIGKILL
    assert Path(f"{path}-journal").exists()


DATABASES = {
    "text": make_text,
    "long text": make_long_text,
    "one byte": lambda path: path.write_bytes(b"x"),
    "zeros": lambda path: path.write_bytes(bytes(8192)),
    "of SQLite, with a table": lambda path: foreign_database(path, "CREATE TABLE t (x)"),
    "of SQLite, of another application": lambda path: foreign_database(
        path, "PRAGMA application_id = 7"
    ),
    "of SQLite, in a log alone": in_a_log_alone,
    "of SQLite, in a transaction": in_a_transaction,
    "directory": make_directory,
    "FIFO": make_fifo,
}


@pytest.mark.parametrize("args", [("set", "k", "1"), ("get", "k"), ("import", "-"), ("export",)])
@pytest.mark.parametrize("kind", DATABASES)
def test_a_foreign_file_is_untouched_and_nothing_is_made_beside_it(
    tmp_path: Path, kind: str, args: tuple[str, ...]
) -> None:
    database = tmp_path / "notes"
    DATABASES[kind](database)
    before = snapshot(tmp_path)
    assert refused(invoked(*args, "--database", str(database)), str(database))
    assert snapshot(tmp_path) == before


def test_an_empty_database_becomes_ours(tmp_path: Path) -> None:
    empty, bare = tmp_path / "empty", tmp_path / "bare"
    empty.touch()
    foreign_database(bare, "PRAGMA journal_mode = WAL; VACUUM;")
    for database in (empty, bare):
        assert invoked("set", "--database", str(database), "k", "1").returncode == 0
        assert invoked("get", "--database", str(database), "k").stdout == b"1\n"


def test_a_header_that_is_in_the_log_alone_is_found(tmp_path: Path) -> None:
    """A new database is in its log until the first checkpoint."""
    with AppServer(tmp_path / "x.db") as server:
        server.ask("POST", "/set-value", b'{"key": "k", "value": 1}')
        server.kill()
    for suffix in OURS:
        Path(f"{server.database}{suffix}").unlink()
    assert invoked("get", "--database", str(server.database), "k").stdout == b"1\n"


def test_files_made_by_root_belong_to_the_databases_owner(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    assert invoked("set", "--database", str(database), "k", "1").returncode == 0
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(database, *owner)
    database.chmod(0o640)
    with AppServer(database) as server:  # as root, and killed
        server.ask("POST", "/set-value", b'{"key": "k", "value": 2}')
        server.kill()
        for path in tmp_path.iterdir():
            found = path.stat()
            assert (found.st_uid, found.st_gid) == owner, path
            assert found.st_mode & 0o777 == 0o640, path
