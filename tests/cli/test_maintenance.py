"""`tenantbase backup`, `restore`, `check` and `compact`, beside servers and without."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tenantbase.interfaces.sqlite.restoring import VERSION_STEP, begin_again
from tenantbase.interfaces.sqlite.sealing import SEAL_BYTES
from tenantbase.process import maintenance
from tenantbase.process.config import Config
from tenantbase.process.maintenance import compact as compact_database
from tests.app_server import AppServer
from tests.command import command, invoked, refused
from tests.servers import poll

ENTRIES = 3_000


def fill(database: Path, count: int = ENTRIES, start: int = 0, size: int = 300) -> None:
    lines = (
        json.dumps(
            {"key": f"k{number:05}", "value": "x" * size, "ttl": 1e6 if number % 3 else None}
        )
        for number in range(start, start + count)
    )
    done = invoked("import", "--database", str(database), stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr


def rows(database: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT * FROM entries ORDER BY created").fetchall()


def last_version(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        (version,) = connection.execute("SELECT max(version) FROM changes").fetchone()
    return int(version)


def secret(database: Path) -> bytes:
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute("SELECT secret FROM state").fetchone()
    return bytes(found)


def succeeds(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = invoked(*map(str, arguments), stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a backup beside it, ``copy``. Tests change neither."""
    directory = tmp_path_factory.mktemp("filled")
    fill(directory / "x.db")
    succeeds("delete", "k00001", "--database", directory / "x.db")
    succeeds("backup", directory / "copy", "--database", directory / "x.db")
    return directory / "x.db"


@pytest.fixture
def copy(filled: Path) -> Path:
    return filled.with_name("copy")


@contextmanager
def writing(server: AppServer) -> Iterator[list[int]]:
    """Write pairs of keys in one transaction each, with the same value, until the block ends."""
    done: list[int] = []
    ending = threading.Event()

    def write() -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        while not ending.is_set():
            number = len(done)
            both = [{"key": f"{side}{number % 50}", "value": number} for side in ("left", "right")]
            connection.request("POST", "/set-values", json.dumps({"values": both}))
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            done.append(number)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        poll(lambda: len(done) > 100, "writes")
        yield done
    finally:
        ending.set()
        thread.join()


def test_a_backup_contains_everything(filled: Path, copy: Path) -> None:
    assert rows(copy) == rows(filled)
    assert last_version(copy) == last_version(filled)
    assert secret(copy) != secret(filled)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert names(filled.parent) == ["copy", "x.db"]


def test_a_backup_of_a_database_in_which_nothing_was_ever_written(tmp_path: Path) -> None:
    database, copy = tmp_path / "x.db", tmp_path / "copy"
    succeeds("tenant", "create", "acme", "--database", database)
    succeeds("backup", copy, "--database", database)
    assert rows(copy) == rows(database) == []
    assert b"acme" in succeeds("tenant", "list", "--database", copy)


def test_a_backup_beside_writes_is_one_version(tmp_path: Path) -> None:
    fill(tmp_path / "x.db", 20_000)
    with AppServer(tmp_path / "x.db") as server, writing(server) as done:
        for name in ("first", "second"):
            before = len(done)
            succeeds("backup", tmp_path / name, "--database", tmp_path / "x.db")
            assert len(done) > before
    # The server was killed at the end of the block, and left files.
    for name in ("first", "second"):
        found = {str(row[1]).partition("/")[2]: row for row in rows(tmp_path / name)}
        for number in range(50):
            assert found[f"left{number}"][-1] == found[f"right{number}"][-1]
        assert max(int(str(row[2])) for row in found.values()) == last_version(tmp_path / name)
        assert succeeds("check", "--database", tmp_path / name).startswith(b"ok: 20,100 entries")
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert succeeds("check", "--database", tmp_path / "x.db") == b"ok: 20,100 entries\n"


def test_a_database_that_never_held_an_entry(tmp_path: Path) -> None:
    """It has tenants and a token, but no change. All commands work on it."""
    options = ("--database", tmp_path / "x.db")
    succeeds("tenant", "create", "acme", *options)
    succeeds("check", *options)
    succeeds("compact", *options)
    succeeds("backup", tmp_path / "copy", *options)
    succeeds("restore", tmp_path / "copy", "--database", tmp_path / "restored.db")
    assert b'"acme"' in succeeds("tenant", "list", "--database", tmp_path / "restored.db")


def test_a_backup_to_a_pipe(filled: Path, tmp_path: Path) -> None:
    copied = command("backup", "-", "--database", str(filled)).stdout
    database = tmp_path / "x.db"
    restored = command("restore", "-", "--database", str(database), stdin=copied)
    assert (restored.returncode, restored.stderr) == (0, b"")
    assert rows(database) == rows(filled)
    assert names(filled.parent) == ["copy", "x.db"]


def test_a_backup_replaces_only_what_it_may(filled: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_bytes(b"precious")
    assert refused(invoked("backup", str(target), "--database", str(filled)), "--force")
    assert target.read_bytes() == b"precious"
    succeeds("backup", target, "--force", "--database", filled)
    assert rows(target) == rows(filled)
    for suffix in ("", "-wal", "-tags", "-lock", "-shm"):
        again = invoked("backup", "--force", f"{filled}{suffix}", "--database", str(filled))
        assert refused(again, "file of the database")
    with AppServer(target) as server:
        assert refused(
            invoked("backup", "--force", str(target), "--database", str(filled)), "in use"
        )
        server.stop()
    assert refused(
        invoked("backup", str(tmp_path / "new"), "--database", str(tmp_path / "none")),
        "no database",
    )
    assert names(tmp_path) == ["copy"]


def test_versions_continue_above_all_that_were_given_out(
    filled: Path, copy: Path, tmp_path: Path
) -> None:
    database = tmp_path / "x.db"
    succeeds("restore", copy, "--database", database)
    first = last_version(database)
    assert first > last_version(filled)
    succeeds("set", "after", "1", "--database", database)
    assert last_version(database) == first + 1
    secrets = {secret(copy), secret(database)}
    succeeds("restore", "--force", copy, "--database", database)
    assert last_version(database) > first + 1
    secrets.add(secret(database))
    assert len(secrets) == 3
    assert rows(database) == rows(filled)
    assert succeeds("check", "--database", database) == b"ok: 2,999 entries\n"


def test_versions_of_a_restored_database_that_was_lost_are_not_given_out_again(
    copy: Path, tmp_path: Path
) -> None:
    """The copy knows nothing of its first restore, and neither does the new disk."""
    for disk in ("first", "second"):
        (tmp_path / disk).mkdir()
        succeeds("restore", copy, "--database", tmp_path / disk / "x.db")
        succeeds("set", "after", "1", "--database", tmp_path / disk / "x.db")
    lost = last_version(tmp_path / "first" / "x.db")
    with closing(sqlite3.connect(tmp_path / "second" / "x.db")) as connection:
        (begun,) = connection.execute("SELECT min(version) FROM changes").fetchone()
    assert begun > lost


def test_versions_continue_above_a_clock_that_was_set_back(copy: Path, tmp_path: Path) -> None:
    known = last_version(copy)
    database = Path(shutil.copy(copy, tmp_path / "x.db"))
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        assert begin_again(connection, 0, known) == known + VERSION_STEP
        assert begin_again(connection, 0, 0) == known + 2 * VERSION_STEP
        assert begin_again(connection, 1 << 50, 1 << 50) == (1 << 50) + VERSION_STEP
        assert begin_again(connection, 0, 1 << 51) == 1 << 51


def test_a_restore_leaves_an_existing_database_alone(
    filled: Path, copy: Path, tmp_path: Path
) -> None:
    database = tmp_path / "x.db"
    succeeds("set", "old", "1", "--database", database)
    before = database.read_bytes()
    restore = ("restore", str(copy), "--database", str(database))
    assert refused(invoked(*restore), "--force")
    with AppServer(database) as server:
        assert refused(invoked(*restore, "--force"), "open")
        assert server.ask("GET", "/get-value?key=old").status == 200
        server.stop()
    assert rows(database)[0][1] == "default/old"
    assert refused(
        invoked("restore", str(database), "--force", "--database", str(database)), "itself"
    )
    assert database.read_bytes() == before
    assert names(tmp_path) == ["x.db"]


def test_a_damaged_copy_is_refused_wherever_the_damage_is(copy: Path, tmp_path: Path) -> None:
    from tenantbase.errors import CannotOpen
    from tenantbase.interfaces.sqlite.sealing import copy_unsealed

    data = copy.read_bytes()
    chosen = random.Random(5)
    places = [*range(100), *range(len(data) - SEAL_BYTES - 8, len(data))]
    places += [chosen.randrange(len(data)) for _ in range(60)]
    damaged = tmp_path / "damaged"
    out = tmp_path / "out"
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << chosen.randrange(8)
        for text in (bytes(flipped), data[:place], data + data[:1] * (place + 1)):
            damaged.write_bytes(text)
            with damaged.open("rb") as source, out.open("wb") as target:
                with pytest.raises(CannotOpen):
                    copy_unsealed(source, "damaged", target)
    damaged.write_bytes(data[:-5])
    database = tmp_path / "x.db"
    assert refused(invoked("restore", str(damaged), "--database", str(database)), "damaged")
    assert names(tmp_path) == ["damaged", "out"]


def test_a_copy_without_a_checksum_needs_consent(filled: Path, copy: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(copy.read_bytes()[:-SEAL_BYTES])
    database = tmp_path / "x.db"
    restore = ("restore", str(plain), "--database", str(database))
    assert refused(invoked(*restore), "--without-checksum")
    from_pipe = invoked("restore", "-", *restore[2:], stdin=plain.read_bytes())
    assert refused(from_pipe, "standard input", "--without-checksum")
    assert refused(invoked("restore", "-", *restore[2:]), "standard input is empty")
    succeeds(*restore, "--without-checksum")
    assert rows(database) == rows(filled)
    plain.write_bytes(copy.read_bytes()[: -SEAL_BYTES - 5_000])
    assert refused(invoked(*restore, "--without-checksum", "--force"), "cannot be restored")
    assert rows(database) == rows(filled)


def test_a_file_that_is_not_a_database_is_kept(filled: Path, copy: Path, tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    database.write_bytes(b"rubbish" * 1_000)
    Path(f"{database}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(100))
    done = invoked("restore", "--force", str(copy), "--database", str(database))
    assert done.returncode == 0
    assert b"x.db.replaced" in done.stderr
    assert rows(database) == rows(filled)
    assert (tmp_path / "x.db.replaced").read_bytes() == b"rubbish" * 1_000
    assert database.stat().st_nlink == 1


def killing(call: str, number: int) -> list[str]:
    """What to put before a command that is to be killed at the n-th of these system calls."""
    calls = f"{call},?{call}at,?{call}at2,?p{call}64"
    injected = f"-einject={calls}:signal=KILL:when={number}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", f"-etrace={calls}", injected]


@pytest.mark.parametrize("call", ["rename", "link", "fsync", "unlink", "flock", "write"])
def test_a_restore_that_is_killed_loses_nothing(
    copy: Path, filled: Path, tmp_path: Path, call: str
) -> None:
    """It is killed at the n-th of these calls, for each n, until it is through.

    Of writes, which are many and mostly alike, at every third.
    """
    old = tmp_path / "old.db"
    fill(old, 50, start=90_000)
    expected = {tuple(map(tuple, rows(old))), tuple(map(tuple, rows(filled)))}
    seen = set()
    for number in range(1, 40, 3 if call == "write" else 1):
        directory = tmp_path / str(number)
        directory.mkdir()
        database = directory / "x.db"
        database.write_bytes(old.read_bytes())
        done = command(
            *("restore", "--force", str(copy), "--database", str(database)),
            before=killing(call, number),
        )
        # What is left opens, and is one of the two, whole.
        assert invoked("list", "--limit", "1", "--database", str(database)).returncode == 0
        found = tuple(map(tuple, rows(database)))
        assert found in expected
        seen.add(found)
        if done.returncode == 0:
            assert found == tuple(map(tuple, rows(filled)))
            return
    assert seen == expected or call == "write"


@pytest.mark.parametrize("call", ["rename", "fsync", "flock", "write"])
def test_a_backup_that_is_killed_leaves_a_whole_copy_or_none(
    filled: Path, tmp_path: Path, call: str
) -> None:
    database = tmp_path / "x.db"
    database.write_bytes(filled.read_bytes())
    expected = rows(database)
    for number in (1, 2, 3, 5, 8, 13, 21, 34):
        directory = tmp_path / str(number)
        directory.mkdir()
        copy = directory / "copy"
        done = command(
            "backup", str(copy), "--database", str(database), before=killing(call, number)
        )
        assert rows(database) == expected
        if copy.exists():
            assert rows(copy) == expected
            succeeds("restore", copy, "--database", directory / "y.db")
        succeeds("backup", "--force", copy, "--database", database)
        if done.returncode == 0:
            return
    assert call == "write"


@pytest.mark.parametrize("call", ["rename", "fsync", "ftruncate", "write"])
def test_a_compact_that_is_killed_loses_nothing(filled: Path, tmp_path: Path, call: str) -> None:
    database = tmp_path / "x.db"
    for number in (1, 2, 3, 5, 8, 13, 21, 34):
        database.write_bytes(filled.read_bytes())
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("DELETE FROM entries WHERE created > 500")
        expected = rows(database)
        done = command("compact", "--database", str(database), before=killing(call, number))
        assert invoked("list", "--limit", "1", "--database", str(database)).returncode == 0
        assert rows(database) == expected
        if done.returncode == 0:
            return
    assert call == "write"


@pytest.mark.parametrize("kib", [8, 100, 400])
def test_without_room_a_command_says_so_and_loses_nothing(
    copy: Path, filled: Path, tmp_path: Path, kib: int
) -> None:
    """The largest file that the commands may write is smaller than what they would."""
    database = tmp_path / "x.db"
    database.write_bytes(filled.read_bytes())
    expected = rows(database)
    other, kept = tmp_path / "other", tmp_path / "kept.db"
    fill(kept, 50, start=90_000)
    kept_rows = rows(kept)
    small = ["prlimit", f"--fsize={kib << 10}"]
    for arguments in (
        ("backup", str(other), "--database", str(database)),
        ("restore", "--force", str(copy), "--database", str(kept)),
    ):
        done = command(*arguments, before=small)
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1, done.stderr
        assert b"Traceback" not in done.stderr
    assert not other.exists() and rows(database) == expected
    assert rows(kept) == kept_rows
    succeeds("backup", other, "--database", database)
    assert rows(other) == expected


def plant(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def findings(database: Path) -> list[str]:
    done = invoked("check", "--database", str(database))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: ") and done.stderr.count(b"\n") == 1, done.stderr
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("UPDATE entries SET value = x'7b' WHERE key = 'default/k00007'", "'k00007'"),
        ("UPDATE entries SET value = 'text' WHERE key = 'default/k00007'", "'k00007'"),
        ("UPDATE entries SET id = 'x' WHERE key = 'default/k00007'", "'k00007'"),
        ("UPDATE entries SET version = 5 WHERE key = 'default/k00007'", "its version, 5"),
        ("UPDATE entries SET version = 1 << 50 WHERE key = 'default/k00007'", "above the last"),
        ("UPDATE entries SET key = 'k00007' WHERE key = 'default/k00007'", "'k00007'"),
        ("UPDATE entries SET key = CAST(x'61ff' AS TEXT) WHERE key = 'default/k00007'", "xff"),
        ("UPDATE entries SET expires_at = 'x' WHERE key = 'default/k00007'", "'k00007'"),
        ("DELETE FROM changes WHERE version = 77", "77"),
        ("UPDATE changes SET kind = 'other' WHERE version = 77", "77"),
        ("UPDATE changes SET key = 'default/z' WHERE version = 8", "'k00007'"),
        ("DELETE FROM state", "secret"),
        ("UPDATE tenants SET entries = entries + 1", "'default'"),
        ("DELETE FROM tenants", "'default'"),
        ("DROP INDEX entries_expiry", "entries_expiry"),
        ("CREATE TRIGGER t AFTER DELETE ON entries BEGIN SELECT 1; END", "t"),
    ],
)
def test_check_finds_what_is_wrong(filled: Path, tmp_path: Path, statement: str, part: str) -> None:
    database = tmp_path / "x.db"
    database.write_bytes(filled.read_bytes())
    plant(database, statement)
    if "state" in statement:
        assert findings(database) == ["state: the secret is missing or damaged"]
        return
    assert any(part in line for line in findings(database)), findings(database)


@pytest.mark.parametrize("index", ["entries_expiry", "sqlite_autoindex_entries_1"])
@pytest.mark.parametrize("beside", [False, True])
def test_check_finds_an_index_that_disagrees(
    filled: Path, tmp_path: Path, index: str, beside: bool
) -> None:
    database = tmp_path / "x.db"
    database.write_bytes(filled.read_bytes())
    data = bytearray(database.read_bytes())
    key = b"default/k00007"
    if index.startswith("sqlite"):
        at = next(
            at
            for at in range(len(data))
            # A leaf page of an index begins with 0x0a (sqlite.org/fileformat).
            if data.startswith(key, at) and data[at // 4096 * 4096] == 0x0A
        )
        data[at : at + len(key)] = key[:-1] + b"8"
    else:
        leaf = next(
            start
            for start in range(0, len(data), 4096)
            # Many entries, none of which holds a key.
            if data[start] == 0x0A
            and int.from_bytes(data[start + 3 : start + 5], "big") > 50
            and key[:8] not in data[start : start + 4096]
        )
        # The last entry no longer counts.
        count = int.from_bytes(data[leaf + 3 : leaf + 5], "big")
        data[leaf + 3 : leaf + 5] = (count - 1).to_bytes(2, "big")
    database.write_bytes(data)
    if beside:
        with AppServer(database):
            lines = findings(database)
    else:
        lines = findings(database)
    assert any(line.startswith("the index of") for line in lines), lines


def test_check_names_the_key_of_a_damaged_row(tmp_path: Path) -> None:
    from tests.damage import damage

    database = tmp_path / "x.db"
    fill(database, 300)
    value = json.dumps("marker" * 20_000)
    succeeds("set", "bad", "-", "--database", database, stdin=value.encode())
    fill(database, 300, start=500)
    damage(database, b"marker")
    lines = findings(database)
    assert any("'bad'" in line and "cannot be read" in line for line in lines), lines
    # The rows after it are checked all the same.
    done = invoked("check", "--database", str(database))
    assert b"600 entries checked" in done.stderr


def test_check_finds_damaged_tokens_and_tenants(tmp_path: Path) -> None:
    """They would keep a server from starting, so no command may end with a traceback."""
    options = ("--database", str(tmp_path / "x.db"))
    for name in ("one", "two"):
        succeeds("token", "create", name, "--scope", "write", *options)
    succeeds("tenant", "create", "acme", *options)
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("UPDATE tokens SET scope = 'vrite' WHERE name = 'one'")
        (token,) = connection.execute("SELECT id FROM tokens WHERE name = 'one'").fetchone()
        connection.execute("UPDATE tenants SET entries = 'many' WHERE name = 'acme'")
    lines = findings(tmp_path / "x.db")
    assert [line.partition(" is damaged")[0] for line in lines] == [
        "access: tenant 'acme'",
        f"access: token {token}",
    ]
    assert refused(invoked("token", "list", *options), "'acme' is damaged")
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("UPDATE tenants SET entries = 0 WHERE name = 'acme'")
    assert refused(command("serve", "--port", "0", "--memcached", "off", *options), token)
    assert refused(invoked("token", "list", *options), f"{token} is damaged, revoke it")
    succeeds("token", "revoke", token, *options)
    assert succeeds("check", *options) == b"ok: 0 entries\n"
    assert succeeds("token", "list", *options).count(b"\n") == 1


def test_a_damaged_change_log_does_not_condemn_entries(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    fill(database, 300)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'changes'"
        ).fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    lines = findings(database)
    assert any(line.startswith("the change log: cannot be read") for line in lines), lines
    assert not [line for line in lines if line.startswith("entry:")]
    assert b"300 entries checked" in invoked("check", "--database", str(database)).stderr


@pytest.mark.parametrize(
    "name", ["check", "stats", "count", "export", "compact", "backup", "restore", "set", "serve"]
)
def test_a_path_that_cannot_be_looked_up_is_an_error(copy: Path, tmp_path: Path, name: str) -> None:
    arguments = {
        "backup": (str(tmp_path / "new"),),
        "restore": (str(copy),),
        "set": ("k", "1"),
        "serve": ("--port", "0", "--memcached", "off"),
    }.get(name, ())
    path = str(tmp_path / ("x" * 300))
    done = command(name, *arguments, "--database", path)
    assert refused(done, f"cannot open {path}: File name too long")
    assert names(tmp_path) == []


def test_long_work_gives_way_to_servers(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_way: list[str] = []
    for name, *others in [("check",), ("backup", str(tmp_path / "new"))]:
        monkeypatch.setattr(maintenance, "_let_others_go_first", partial(gave_way.append, name))
        assert invoked(name, *others, "--database", str(copy)).returncode == 0
    assert gave_way == ["check", "backup"]
    # What it does is for good, so it is done elsewhere.
    lower = "import os; usual = os.nice(0); _let_others_go_first(); print(os.nice(0) - usual)"
    module = "from tenantbase.process.maintenance import _let_others_go_first"
    done = subprocess.run(
        [sys.executable, "-c", f"{module}; {lower}"], capture_output=True, check=True
    )
    assert int(done.stdout) == min(10, 19 - os.getpriority(os.PRIO_PROCESS, 0))


def test_check_and_restore_survive_any_file(filled: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from tenantbase.main import main

    data = filled.read_bytes()[:200_000]
    chosen = random.Random(3)
    database = tmp_path / "x.db"
    for number in range(150):
        text = bytearray(data)
        match number % 5:
            case 0:
                text = bytearray(chosen.randbytes(chosen.randrange(20_000)))
            case 1:
                del text[chosen.randrange(len(text)) :]
            case 2:
                for _ in range(chosen.choice((1, 10, 1000))):
                    text[chosen.randrange(len(text))] = chosen.randrange(256)
            case 3:
                text[:100] = data[:60] + chosen.randbytes(40)
            case 4:
                at = chosen.randrange(0, len(text), 4096)
                text[at : at + 4096] = chosen.randbytes(4096)
        database.write_bytes(text)
        for arguments in (
            ("check", "--database", str(database)),
            ("restore", "--without-checksum", str(database), "--database", str(tmp_path / "y.db")),
            ("backup", "--force", str(tmp_path / "z"), "--database", str(database)),
            ("compact", "--database", str(database)),
        ):
            result = CliRunner().invoke(main, arguments)
            assert isinstance(result.exception, SystemExit | None), (number, arguments)
        for left in tmp_path.iterdir():
            left.unlink()


def test_compact_beside_a_server(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    fill(database, 5_000)
    before = database.stat().st_size
    with AppServer(database) as server, writing(server):
        answer = server.ask("POST", "/delete-values", json.dumps({"prefix": "k"}).encode())
        assert answer.status == 200
        poll(lambda: b"freed 0" not in succeeds("compact", "--database", database), "free space")
        poll(
            lambda: bool(succeeds("compact", "--database", database))
            and database.stat().st_size < before / 4,
            "the file to shrink",
        )
        # Its count includes rows of the deleted prefix that the server has yet to remove.
        poll(lambda: succeeds("check", "--database", database) == b"ok: 100 entries\n", "the rest")


def test_a_step_of_compact_moves_many_pages(tmp_path: Path) -> None:
    """With a commit for each page, it would take hours, and end when others free one meanwhile."""
    database = tmp_path / "x.db"
    fill(database, 5_000)
    steps: list[int] = []
    with AppServer(database), closing(sqlite3.connect(database, isolation_level=None)) as watcher:
        watcher.execute("DELETE FROM entries WHERE created > 500")
        (free,) = watcher.execute("PRAGMA freelist_count").fetchone()
        compact_database(Config(database=database), steps.append)
        assert watcher.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert sum(steps) >= free > 200
    assert max(steps) >= 64


def test_compact_removes_what_was_deleted_while_no_server_runs(tmp_path: Path) -> None:
    """Servers remove the rows of deleted tenants and prefixes in the background, and expired ones."""
    options = ("--database", str(tmp_path / "x.db"))
    succeeds("tenant", "create", "acme", *options)
    lines = "".join(
        f'{{"key": "k{number}", "value": "{number:0500}"}}\n' for number in range(2_000)
    )
    succeeds("import", "--tenant", "acme", *options, stdin=lines.encode())
    succeeds("set", "brief", "1", "--ttl", "0.001", *options)
    succeeds("set", "kept", "1", *options)
    succeeds("tenant", "delete", "acme", "--yes", *options)
    left = len(rows(tmp_path / "x.db")) - 2
    assert left > 1_000
    said = f"ok: 2 entries, and {left:,} deleted ones that are yet to be removed\n"  # what has expired counts
    assert succeeds("check", *options) == said.encode()
    before = (tmp_path / "x.db").stat().st_size
    succeeds("compact", *options)
    assert len(rows(tmp_path / "x.db")) == 1
    assert (tmp_path / "x.db").stat().st_size < before / 4
    assert succeeds("check", *options) == b"ok: 1 entries\n"


def test_compact_without_a_server(filled: Path, tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    database.write_bytes(filled.read_bytes())
    plant(database, "PRAGMA auto_vacuum = NONE", "VACUUM")
    with AppServer(database):
        assert refused(invoked("compact", "--database", str(database)), "no server")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM entries WHERE created > 500")
        expected = connection.execute("SELECT * FROM entries ORDER BY created").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = database.stat().st_size
    assert succeeds("compact", "--database", database).startswith(b"freed ")
    assert database.stat().st_size < before / 2
    assert rows(database) == expected
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert names(tmp_path) == ["x.db"]
