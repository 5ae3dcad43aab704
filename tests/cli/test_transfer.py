"""`tenantbase import` and `tenantbase export`."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from tenantbase.cli import transfer
from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.cli.test_main import run

pytestmark = pytest.mark.integration  # the commands open a database


CHANGE_LOG_SIZE = 65_536  # the default


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 40 lines."""
    monkeypatch.setattr(transfer, "_BATCH_LINES", 40)


def load(database: Path, *lines: bytes | str, options: tuple[str, ...] = ()) -> Result:
    text = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return run("import", "--database", str(database), *options, stdin=text)


def dump(database: Path, *options: str) -> list[bytes]:
    result = run("export", "--database", str(database), *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout_bytes.splitlines()


# The fields that an import does not preserve.
OWN = ("id", "version")


def without_own(lines: list[bytes]) -> list[dict[str, object]]:
    entries = [msgspec.json.decode(line, type=dict[str, object]) for line in lines]
    return [{name: each for name, each in entry.items() if name not in OWN} for entry in entries]


def test_an_export_can_be_imported(tmp_path: Path) -> None:
    lines = [
        '{"key": "a", "value": 1.0}',
        '{"key": "b", "value": {"z": 12345678901234567890, "a": [ ]}, "expires_at": 99999999999.5}',
        '{"key": "c", "value": "AP8=", "encoding": "base64", "content_type": "image/png"}',
        '{"key": "d\\n\\u00e9\\ud83d\\ude00", "value": "\\u2028", "ttl": 1e6}',
        '{"key": "e", "value": null, "content_type": "application/ld+json", "id": "x", "version": 9}',
    ]
    first, second = tmp_path / "1.db", tmp_path / "2.db"
    assert load(first, *lines, "", "  ").output == ""
    exported = dump(first)
    assert len(exported) == 5
    assert b'"value":1.0,' in exported[0]
    assert b'"value":{"z": 12345678901234567890, "a": [ ]},' in exported[1]
    assert load(second, *exported).exit_code == 0
    assert without_own(dump(second)) == without_own(exported)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db"]


def test_many_lines(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    lines = [f'{{"key":"{n:05d}","value":{n}}}' for n in range(10_000)]
    assert load(database, *reversed(lines)).exit_code == 0
    keys = [entry["key"] for entry in without_own(dump(database))]
    assert keys == [f"{n:05d}" for n in range(10_000)]
    assert len(dump(database, "--prefix", "0001")) == 10


def test_the_change_log_stays_within_its_bound(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    lines = (f'{{"key": "k{number}", "value": {number}}}' for number in range(100_000))
    assert load(database, *lines).output == ""
    with closing(sqlite3.connect(database)) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM changes").fetchone()
        (entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    assert entries == 100_000
    assert CHANGE_LOG_SIZE <= kept < CHANGE_LOG_SIZE + transfer._LINES_BEFORE_SWEEP


def test_the_last_of_two_lines_counts(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    assert load(database, '{"key":"k","value":1}', '{"key":"k","value":2}').exit_code == 0
    (entry,) = without_own(dump(database))
    assert entry["value"] == 2


def test_expired_entries_are_skipped(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    gone = '{"key":"a","value":1,"expires_at":1.5}'
    assert load(database, gone, '{"key":"b","value":1}').exit_code == 0
    assert [entry["key"] for entry in without_own(dump(database))] == ["b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key":"k","value":}', "the body is not valid JSON"),
        ('{"key":"k"}', "value: object missing required field `value`"),
        ('{"key":"k","value":1,"tll":5}', "tll: object contains unknown field `tll`"),
        ('{"key":"","value":1}', "key: a key has at least one character"),
        ('{"key":"k","value":1,"ttl":0}', "ttl: "),
        ('{"key":"k","value":"*","encoding":"base64"}', "value: expected a base64 string"),
        ('{"key":"k","value":1,"if_absent":true}', "an import has no conditions"),
        ('{"key":"k","value":1,"if_version":1}', "an import has no conditions"),
        ('{"key":"k","value":"%s"}' % ("x" * 20), "value: a value has at most 20 bytes"),
        (
            '{"key":"k","value":"%s"}' % ("x" * 99_999),
            "the line is too long: no value of that size may be stored",
        ),
        (b'{"key":"\xff","value":1}', "not valid UTF-8"),
        ("[" * 100_000, "the line is too long: no value of that size may be stored"),
        (
            '{"key":"k","value":' + "[" * 30_000 + "]" * 30_000 + "}",
            "the JSON is nested too deeply",
        ),
    ],
)
@pytest.mark.usefixtures("small_batches")
def test_a_bad_line_is_named_and_those_before_it_are_stored(
    tmp_path: Path, line: bytes | str, message: str
) -> None:
    database = tmp_path / "x.db"
    good = '{"key":"%d","value":1}'
    lines = [*(good % n for n in range(50)), line, good % 50]
    result = load(database, *lines, options=("--max-value-bytes", "20"))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: line 51: {message}")
    assert result.stderr.endswith("; the lines before it are stored\n")
    assert len(result.stderr.splitlines()) == 1
    assert len(dump(database)) == 50


def test_an_export_needs_a_database(tmp_path: Path) -> None:
    result = run("export", "--database", str(tmp_path / "x.db"))
    assert result.exit_code == 1 and result.stderr.startswith("Error: there is no database")


def test_beside_a_running_server(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        for _ in range(2):  # its absence is cached
            assert server.ask("GET", "/get-value?key=k").status == 404
        for value in (1, 2):
            assert load(server.database, '{"key":"k","value":%d}' % value).exit_code == 0
            for _ in range(2):
                assert server.ask("GET", "/get-value?key=k").json["value"] == value
        assert server.ask("GET", "/get-value?key=k").headers["X-Cache"] == "HIT"
        assert len(dump(server.database)) == 1


def test_progress_is_shown_at_a_terminal(tmp_path: Path) -> None:
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(other_end, (24, 80))
    done = subprocess.run(
        [sys.executable, "-m", "tenantbase", "import", "--database", str(tmp_path / "x.db")],
        input=b'{"key":"k","value":1}\n' * 3,
        stdout=subprocess.PIPE,
        stderr=other_end,
        timeout=READY_SECONDS,
        env=clean_environment(),
    )
    os.close(other_end)
    shown = os.read(terminal, 65_536)
    os.close(terminal)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"3.00 entries" in shown


@pytest.mark.parametrize("first", ['{"key":"k"', '{"key":"k"}', "x"])
@pytest.mark.parametrize("before", [0, 40])
@pytest.mark.usefixtures("small_batches")
def test_a_bad_line_at_the_beginning_of_a_batch(tmp_path: Path, first: str, before: int) -> None:
    """Nothing of its batch is stored, and it is not mistaken for the end of the input."""
    database = tmp_path / "x.db"
    lines = [*(f'{{"key":"{n}","value":1}}' for n in range(before)), first, '{"key":"a","value":1}']
    result = load(database, *lines)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: line {before + 1}: ")
    assert len(dump(database)) == before


@pytest.mark.usefixtures("small_batches")
def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    assert load(database, b'\xef\xbb\xbf{"key":"k","value":"\xef\xbb\xbf"}').exit_code == 0
    (entry,) = without_own(dump(database))
    assert (entry["key"], entry["value"]) == ("k", "\ufeff")
    assert load(database, b"\xef\xbb\xbf", '{"key":"l","value":1}').exit_code == 0
    assert len(dump(database)) == 2
    assert "line 2: " in load(database, '{"key":"m","value":1}', b"\xef\xbb\xbf{}").stderr
    batch = [f'{{"key":"{number}","value":1}}' for number in range(40)]
    late = load(database, *batch, b'\xef\xbb\xbf{"key":"k","value":1}')
    assert late.exit_code == 1 and "line 41: " in late.stderr


def test_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "missing"):
        result = run("import", "--database", str(tmp_path / "x.db"), str(file))
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: cannot read {file}: ")
        assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
