"""`tenantbase tenant` and `--tenant`, on the database itself and over HTTP."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.app_server import clean_environment
from tests.cli.places import Place, place
from tests.cli.test_main import failed, run
from tests.command import TENANTBASE

pytestmark = pytest.mark.integration  # some commands serve

NEW = {"entries": 0, "bytes": 0, "max_entries": None, "max_bytes": None}
UNLIMITED = NEW | {"max_requests_per_second": None}


@pytest.fixture(params=["direct", "over HTTP"])
def tenantbase(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place(request.param, tmp_path) as found:
        yield found


def test_tenants_are_made_limited_and_deleted(tenantbase: Place) -> None:
    made = tenantbase.records("tenant", "create", "acme", "--max-bytes", "2MiB")
    assert made == [{"name": "acme"} | UNLIMITED | {"max_bytes": 2 << 20}]
    limited = tenantbase.records(
        *("tenant", "limit", "acme", "--max-bytes", "none"),
        *("--max-entries", "10", "--max-requests-per-second", "1000"),
    )
    assert limited == [
        {"name": "acme"} | NEW | {"max_entries": 10, "max_requests_per_second": 1000}
    ]
    tenantbase.done("tenant", "create", "b")
    listed = tenantbase.records("tenant", "list")
    assert [each["name"] for each in listed] == ["acme", "b", "default"]
    assert listed[0] == limited[0] and listed[1] == {"name": "b"} | UNLIMITED
    assert tenantbase.done("tenant", "delete", "acme") == ""
    assert [each["name"] for each in tenantbase.records("tenant", "list")] == ["b", "default"]


def test_limits_that_are_not_given_stay(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "a", "--max-entries", "1", "--max-bytes", "100")
    (limited,) = tenantbase.records("tenant", "limit", "a", "--max-entries", "2")
    assert (limited["max_entries"], limited["max_bytes"]) == (2, 100)


def test_tenant_that_exists_is_not_made_again(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "a", "--max-entries", "1")
    again = tenantbase.run("tenant", "create", "a", "--max-entries", "2")
    text = "the tenant 'a' exists already; to change its limits, use tenant limit"
    assert failed(again, text)
    assert tenantbase.records("tenant", "list")[0]["max_entries"] == 1


@pytest.mark.parametrize("args", [("limit", "nope", "--max-entries", "1"), ("delete", "nope")])
def test_absent_tenant_is_neither_limited_nor_deleted(
    tenantbase: Place, args: tuple[str, ...]
) -> None:
    tenantbase.done("tenant", "create", "other")
    assert failed(tenantbase.run("tenant", *args), "there is no tenant 'nope'")
    assert [each["name"] for each in tenantbase.records("tenant", "list")] == ["default", "other"]


def test_default_stays(tenantbase: Place) -> None:
    tenantbase.done("set", "k", "1")
    result = tenantbase.run("tenant", "delete", "default")
    assert result.exit_code == 1 and "'default' always exists" in result.stderr
    assert tenantbase.done("get", "k") == "1\n"
    (limited,) = tenantbase.records("tenant", "limit", "default", "--max-requests-per-second", "99")
    assert limited["max_requests_per_second"] == 99


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("create", "Acme"), "a tenant's name is"),
        (("create", "a/b"), "a tenant's name is"),
        (("delete", ""), "a tenant's name is"),
        (("create",), "Missing argument 'NAME'"),
        (("limit", "default"), "at least one limit"),
        (("limit", "default", "--max-bytes", "lots"), "expected a size"),
        (("limit", "default", "--max-entries", "-1"), "expected a number from 0"),
        (("limit", "default", "--max-requests-per-second", "0"), "expected a number from 1"),
        (("limit", "default", "--max-requests-per-second", "0"), "or none"),
    ],
)
def test_misuse_is_explained(tmp_path: Path, args: tuple[str, ...], text: str) -> None:
    result = run("tenant", *args, "--database", str(tmp_path / "x.db"))
    assert result.exit_code == 2 and text in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_each_tenant_has_keys_of_its_own(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "acme")
    acme = {"TENANTBASE_TENANT": "acme"}
    tenantbase.done("set", "k", '"default"')
    tenantbase.done("set", "k", '"acme"', "--tenant", "acme")
    tenantbase.done("set", "only", "1", **acme)
    assert tenantbase.done("get", "k") == '"default"\n'
    assert tenantbase.done("get", "k", "--tenant", "default") == '"default"\n'
    assert tenantbase.done("get", "k", **acme) == '"acme"\n'
    assert [each["key"] for each in tenantbase.records("list")] == ["k"]
    assert [each["key"] for each in tenantbase.records("list", **acme)] == ["k", "only"]
    assert failed(tenantbase.run("get", "only"), "there is no key 'only'")
    tenantbase.done("delete", "k", **acme)
    assert tenantbase.done("get", "k") == '"default"\n'


@pytest.mark.parametrize("args", [("set", "k", "1"), ("get", "k"), ("delete", "k"), ("list",)])
def test_unknown_tenant_is_an_error(tenantbase: Place, args: tuple[str, ...]) -> None:
    tenantbase.done("set", "k", "0")
    result = tenantbase.run(*args, "--tenant", "nope")
    assert failed(result, "there is no tenant 'nope'")
    assert tenantbase.done("get", "k") == "0\n"


def test_deleted_tenant_comes_back_empty(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "acme")
    tenantbase.done("set", "k", "1", "--tenant", "acme")
    tenantbase.done("tenant", "delete", "acme")
    assert failed(tenantbase.run("get", "k", "--tenant", "acme"), "there is no tenant 'acme'")
    tenantbase.done("tenant", "create", "acme")
    assert tenantbase.records("list", "--tenant", "acme") == []


def test_import_and_export_are_for_one_tenant(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        tenantbase.done("set", "k", "0")
        tenantbase.done("tenant", "create", "acme")
        lines = b'{"key": "a", "value": 1}\n{"key": "b", "value": 2}\n'
        assert tenantbase.run("import", "--tenant", "acme", stdin=lines).exit_code == 0
        assert [each["key"] for each in tenantbase.records("export")] == ["k"]
        exported = tenantbase.records("export", TENANTBASE_TENANT="acme")
        assert [each["key"] for each in exported] == ["a", "b"]
        for args in (("import",), ("export",)):
            result = tenantbase.run(*args, "--tenant", "nope", stdin=lines)
            assert failed(result, "there is no tenant 'nope'")


def test_no_database_is_made_for_a_tenant_that_it_cannot_have(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        for args in (("set", "k", "1"), ("token", "create", "--scope", "read")):
            result = tenantbase.run(*args, "--tenant", "acme")
            assert failed(result, f"there is no database {tenantbase.database}")
        assert list(tmp_path.iterdir()) == []


def test_read_only_database_shows_its_tenants(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        tenantbase.done("tenant", "create", "acme", "--max-entries", "5")
        tenantbase.done("set", "k", "1", "--tenant", "acme")
        tenantbase.done("token", "create", "ci", "--scope", "read")
        from tests.cli.test_read_only import run as run_read_only

        tenantbase.database.chmod(0o400)
        tmp_path.chmod(0o500)
        try:
            listed = run_read_only(tenantbase.database, "tenant", "list")
            assert msgspec.json.decode(listed.stdout.splitlines()[0])["max_entries"] == 5
            tokens = run_read_only(tenantbase.database, "token", "list").stdout
            assert msgspec.json.decode(tokens)["name"] == "ci"
            got = run_read_only(tenantbase.database, "get", "k", "--tenant", "acme")
            assert got.stdout == b"1\n"
            absent = run_read_only(tenantbase.database, "list", "--tenant", "nope")
            assert b"there is no tenant 'nope'" in absent.stderr
        finally:
            tmp_path.chmod(0o700)


def at_a_terminal(database: Path, *args: str, typed: bytes = b"") -> tuple[int, str, str]:
    """Run a command whose standard input and output are a terminal.

    Returns: its exit status, what it shows, and its standard error.
    """
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [*TENANTBASE, *args, "--database", str(database)],
        stdin=other_end,
        stdout=other_end,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    os.close(other_end)
    os.write(terminal, typed)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # all ends of it are closed
            break
        shown += piece
    _, stderr = process.communicate(timeout=20)
    os.close(terminal)
    return process.returncode, shown.decode().replace("\r\n", "\n"), stderr.decode()


def test_terminal_gets_a_table(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        tenantbase.done("tenant", "create", "acme", "--max-bytes", "1GiB")
        status, shown, _ = at_a_terminal(tenantbase.database, "tenant", "list")
    assert status == 0
    assert shown == (
        "NAME     ENTRIES  BYTES  MAX ENTRIES      MAX BYTES  MAX REQUESTS/S\n"
        "acme           0      0  -            1,073,741,824  -\n"
        "default        0      0  -                        -  -\n"
    )


@pytest.mark.parametrize(
    ("options", "typed", "status"),
    [((), b"n\n", 1), ((), b"\n", 1), ((), b"y\n", 0), (("--yes",), b"", 0)],
)
def test_terminal_is_asked_before_a_tenant_is_deleted(
    tmp_path: Path, options: tuple[str, ...], typed: bytes, status: int
) -> None:
    with place("direct", tmp_path) as tenantbase:
        tenantbase.done("tenant", "create", "acme")
        tenantbase.done("set", "k", "1", "--tenant", "acme")
        done = at_a_terminal(tenantbase.database, "tenant", "delete", "acme", *options, typed=typed)
        assert done[0] == status, done
        assert ("Delete the tenant 'acme'" in done[2]) == (not options)
        left = [each["name"] for each in tenantbase.records("tenant", "list")]
        assert left == (["default"] if status == 0 else ["acme", "default"])
