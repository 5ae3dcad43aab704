"""Backups of databases in which somebody changed rows by hand: each of them can be restored."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tenantbase.interfaces.sqlite.sealing import SEAL_BYTES
from tests.command import invoked, refused

COUNT = 1_200  # more than one step of a copy and of a check


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """With the rows k0000 to k1199."""
    path = tmp_path / "x.db"
    lines = (json.dumps({"key": f"k{at:04}", "value": "x"}) for at in range(COUNT))
    done = invoked("import", "--database", str(path), stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr
    return path


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(f"UPDATE entries SET {statement}").rowcount == 1


def said(*arguments: str | Path) -> tuple[bytes, bytes]:
    """Standard output and standard error of a command that succeeds."""
    done = invoked(*map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def restored(database: Path) -> tuple[dict[str, Any], bytes]:
    """Back up a database, and restore the copy elsewhere.

    Returns: the values there, by key; and what the restore said about the copy.
    """
    copy, other = database.parent / "copy", database.parent / "other.db"
    said("backup", copy, "--database", database)
    _, messages = said("restore", copy, "--database", other)
    listed, _ = said("list", "--database", other)
    entries = map(json.loads, listed.splitlines())
    return {entry["key"]: entry["value"] for entry in entries}, messages


@pytest.mark.parametrize(
    ("statement", "value", "finding"),
    [
        ("value = '12' WHERE key = 'default/k0700'", 12, b"wrong types"),
        ("id = x'00' WHERE key = 'default/k0700'", "x", b"wrong types"),
        ("expires_at = 'soon' WHERE key = 'default/k0700'", "x", b"wrong types"),
        ("version = 5 WHERE key = 'default/k0700'", "x", b"its version, 5"),
        ("content_type = '' WHERE key = 'default/k0700'", "Ingi", b"not a media type"),
        ("created = -3 WHERE key = 'default/k0700'", "x", b"its creation, -3"),
    ],
)
def test_an_odd_row_is_restored(
    database: Path, statement: str, value: object, finding: bytes
) -> None:
    change(database, statement)
    values, messages = restored(database)
    assert len(values) == COUNT
    assert values["k0700"] == value
    assert finding in messages and b"'k0700'" in messages


def test_text_that_is_not_utf_8_is_replaced_in_a_copy(database: Path) -> None:
    change(
        database,
        "id = CAST(x'ff' AS TEXT) WHERE key = 'default/k0700'",
        "key = x'ff' WHERE key = 'default/k0701'",
    )
    values, messages = restored(database)
    assert len(values) == COUNT - 1 and values["k0700"] == "x"
    assert b"entry" not in messages


def test_a_value_that_is_no_json_is_restored(database: Path) -> None:
    change(database, "value = x'7b' WHERE key = 'default/k0700'")
    copy, other = database.parent / "copy", database.parent / "other.db"
    said("backup", copy, "--database", database)
    _, messages = said("restore", copy, "--database", other)
    assert b"'k0700'" in messages and b"not JSON" in messages
    assert said("get", "--raw", "k0700", "--database", other)[0] == b"{"


def test_what_was_miscounted_is_corrected(database: Path) -> None:
    change(database, "value = x'3132333435' WHERE key = 'default/k0700'")
    assert b"its counts say" in invoked("check", "--database", str(database)).stdout
    values, _ = restored(database)
    assert values["k0700"] == 12345
    done, _ = said("check", "--database", database.parent / "other.db")
    assert done == f"ok: {COUNT:,} entries\n".encode()


def test_without_a_checksum_an_odd_row_may_be_damage(database: Path) -> None:
    change(database, "id = x'00' WHERE key = 'default/k0700'")
    copy = database.parent / "copy"
    said("backup", copy, "--database", database)
    copy.write_bytes(copy.read_bytes()[:-SEAL_BYTES])
    restore = ("restore", "--without-checksum", str(copy), "--database", f"{database}.other")
    assert refused(invoked(*restore), "cannot be restored", "'k0700'")


@pytest.mark.parametrize("last", ["0000", "0700", "1199"])
def test_a_key_that_is_not_text_is_left_out(database: Path, last: str) -> None:
    """Whether it is the first, the last or neither of its step."""
    change(
        database, f"key = CAST(x'{b'default/k9'.hex()}ff' AS TEXT) WHERE key = 'default/k{last}'"
    )
    done = invoked("check", "--database", str(database))
    assert rb"key 'k9\\xff' of tenant 'default'" in done.stdout, done.stdout
    copy = database.parent / "copy"
    _, messages = said("backup", copy, "--database", database)
    assert b"left out" in messages and b": 1 with" in messages
    _, piped = said("backup", "-", "--database", database)
    assert piped == messages
    other = database.parent / "other.db"
    said("restore", copy, "--database", other)
    assert said("check", "--database", other)[0] == f"ok: {COUNT - 1:,} entries\n".encode()


def test_check_ends_with_keys_that_are_no_text_at_all(database: Path) -> None:
    change(
        database,
        "key = x'ff' WHERE key = 'default/k0007'",
        "key = x'fe00' WHERE key = 'default/k1199'",
    )
    done = invoked("check", "--database", str(database))
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"wrong types" in done.stdout


@pytest.mark.parametrize("key", ["x'ff'", "x'64656661756c742f6b30'"])
def test_a_row_without_a_text_as_key_is_left_out(database: Path, key: str) -> None:
    change(database, f"key = {key} WHERE key = 'default/k0007'")
    copy, other = database.parent / "copy", database.parent / "other.db"
    assert b": 1 with" in said("backup", copy, "--database", database)[1]
    said("restore", copy, "--database", other)
    assert said("check", "--database", other)[0] == f"ok: {COUNT - 1:,} entries\n".encode()


@pytest.mark.parametrize("line", ["kind = 'other'", "key = CAST(x'ff' AS TEXT)", "size = 'x'"])
def test_the_last_line_of_the_change_log_may_be_illegal(database: Path, line: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(f"UPDATE changes SET {line} WHERE version = {COUNT}")
    values, _ = restored(database)
    assert len(values) == COUNT
    if "size" not in line:
        found = invoked("check", "--database", str(database)).stdout
        assert b"the line of version 1200 is not valid" in found


def test_a_refusal_names_what_cannot_be_accepted(database: Path) -> None:
    change(database, "id = x'00' WHERE key = 'default/k0700'")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("UPDATE tenants SET max_entries = 'x'")
    copy = database.parent / "copy"
    said("backup", copy, "--database", database)
    done = invoked("restore", str(copy), "--database", f"{database}.other")
    assert refused(done, "1 thing is wrong, first access: tenant 'default'")
