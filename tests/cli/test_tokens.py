"""`tenantbase token`, on the database itself and over HTTP."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import clean_environment
from tests.cli.places import Place, place
from tests.cli.test_main import failed, run
from tests.cli.test_tenants import at_a_terminal
from tests.command import TENANTBASE

pytestmark = pytest.mark.integration  # some commands serve

TOKEN = re.compile("tb_[A-Za-z0-9_-]{43}")
FIELDS = {"id", "name", "scope", "tenant", "prefix", "created_at", "expires_at"}


@pytest.fixture(params=["direct", "over HTTP"])
def tenantbase(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place(request.param, tmp_path) as found:
        yield found


def made(tenantbase: Place, *args: str, **variables: str) -> str:
    """Make a token, and nothing else on standard output. Returns: its secret."""
    output = tenantbase.done("token", "create", *args, **variables)
    assert TOKEN.fullmatch(output.removesuffix("\n")) and output.endswith("\n")
    return output.strip()


def test_tokens_are_made_listed_and_revoked(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "acme")
    before = len(tenantbase.records("token", "list"))
    begun = time.time()
    secrets = [
        made(tenantbase, "ci", "--scope", "write", "--tenant", "acme", "--prefix", "ci/"),
        made(tenantbase, "short", "--scope", "read", "--ttl", "3600.5"),
        made(tenantbase, "--scope", "metrics"),
        made(tenantbase, "--scope", "admin"),
    ]
    assert len(set(secrets)) == 4
    text = tenantbase.done("token", "list")
    assert not any(secret in text for secret in secrets)
    listed = tenantbase.records("token", "list")[before:]
    assert all(each.keys() == FIELDS for each in listed)
    assert [(t["name"], t["scope"], t["tenant"], t["prefix"]) for t in listed] == [
        ("ci", "write", "acme", "ci/"),
        ("short", "read", "default", None),
        ("metrics", "metrics", None, None),
        ("admin", "admin", None, None),
    ]
    assert [each["expires_at"] is None for each in listed] == [True, False, True, True]
    assert all(begun - 60 < each["created_at"] < time.time() + 60 for each in listed)
    assert listed[1]["expires_at"] - listed[1]["created_at"] == pytest.approx(3600.5)
    assert tenantbase.done("token", "revoke", listed[0]["id"]) == ""
    assert tenantbase.records("token", "list")[before:] == listed[1:]


def test_only_the_digest_is_in_the_database(tenantbase: Place) -> None:
    secret = made(tenantbase, "--scope", "read")
    for file in tenantbase.database.parent.iterdir():
        assert secret.encode() not in file.read_bytes(), file


def test_tokens_of_a_deleted_tenant_are_gone(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "acme")
    before = tenantbase.records("token", "list")
    made(tenantbase, "--scope", "read", "--tenant", "acme")
    tenantbase.done("tenant", "delete", "acme")
    assert tenantbase.records("token", "list") == before


def test_revoking_what_does_not_exist_is_an_error(tenantbase: Place) -> None:
    secret = made(tenantbase, "--scope", "read")
    before = tenantbase.records("token", "list")
    for wrong in ("00000000-0000-0000-0000-000000000000", secret, "", "../tenants/default"):
        result = tenantbase.run("token", "revoke", wrong)
        assert failed(result, "there is no token with this id; token list prints the ids")
    assert tenantbase.records("token", "list") == before


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--scope", "admin", "--tenant", "default"), "has no tenant"),
        (("--scope", "metrics", "--prefix", "a"), "has no prefix"),
        (("--scope", "read", "--tenant", "nope"), "there is no tenant 'nope'"),
        (("", "--scope", "read"), "a name has 1 to 128 characters"),
        (("x" * 129, "--scope", "read"), "a name has 1 to 128 characters"),
        (("a\nb", "--scope", "read"), "no control characters"),
        (("--scope", "read", "--ttl", "0"), "ttl"),
        (("--scope", "read", "--ttl", "nan"), "ttl"),
        (("--scope", "read", "--prefix", "x" * 1025), "at most 1,024 bytes"),
        ((), "SCOPE is missing"),
    ],
)
def test_refused_token_is_not_made(tenantbase: Place, args: tuple[str, ...], text: str) -> None:
    tenantbase.done("set", "k", "1")
    before = tenantbase.records("token", "list")
    result = tenantbase.run("token", "create", *args)
    assert result.exit_code == 1 and text in result.stderr, result.output
    assert result.stdout == ""
    assert tenantbase.records("token", "list") == before


def test_scope_is_one_of_four(tenantbase: Place) -> None:
    result = tenantbase.run("token", "create", "--scope", "root")
    assert result.exit_code == 2 and "'read', 'write', 'metrics', 'admin'" in result.stderr


def test_variable_names_the_tenant_of_tokens_that_have_one(tenantbase: Place) -> None:
    tenantbase.done("tenant", "create", "acme")
    made(tenantbase, "--scope", "read", TENANTBASE_TENANT="acme")
    made(tenantbase, "--scope", "admin", TENANTBASE_TENANT="acme")
    listed = tenantbase.records("token", "list")
    assert [each["tenant"] for each in listed[-2:]] == ["acme", None]


@pytest.mark.parametrize("destination", ["full", "closed"])
def test_token_that_cannot_be_printed_is_revoked(tmp_path: Path, destination: str) -> None:
    with place("direct", tmp_path) as tenantbase:
        tenantbase.done("set", "k", "1")
        output = " >/dev/full" if destination == "full" else " >&-"
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {output}', "sh", *TENANTBASE]
            + ["token", "create", "--scope", "read", "--database", str(tenantbase.database)],
            capture_output=True,
            text=True,
            timeout=40,
            env=clean_environment(),
        )
        assert done.returncode == 1
        assert done.stderr.startswith("Error: the token could not be printed, and is revoked: ")
        assert tenantbase.records("token", "list") == []


def test_first_token_can_be_made_before_there_is_a_server(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        made(tenantbase, "--scope", "admin")
        assert tenantbase.database.exists()


def test_disabling_opens_the_database(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        made(tenantbase, "--scope", "admin")
        made(tenantbase, "--scope", "read")
        assert tenantbase.done("token", "disable") == ""
        assert tenantbase.records("token", "list") == []
        assert tenantbase.done("token", "disable") == "", "a retry must not fail"


def test_tokens_are_not_disabled_over_http(tmp_path: Path) -> None:
    text = "--url: tokens can only be disabled on the database itself, with --database"
    for given in ({"TENANTBASE_URL": "http://localhost:1"}, {}):
        options = () if given else ("--url", "http://localhost:1")
        assert failed(run("token", "disable", *options, **given), text, status=2)
    absent = run("token", "disable", "--database", str(tmp_path / "x.db"))
    assert failed(absent, f"there is no database {tmp_path / 'x.db'}")


def test_terminal_gets_a_table(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        made(tenantbase, "naïve 日本", "--scope", "read", "--prefix", "\x1b[2J/", "--ttl", "1e9")
        made(tenantbase, "root", "--scope", "admin")
        listed = tenantbase.records("token", "list")
        status, shown, _ = at_a_terminal(tenantbase.database, "token", "list")
    first, second = (
        (each["id"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each["created_at"])))
        for each in listed
    )
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(listed[0]["expires_at"]))
    heading = f"{'ID':36}  NAME        SCOPE  TENANT   PREFIX    {'CREATED':20}  EXPIRES\n"
    assert status == 0
    assert shown == (
        f"{heading}"
        f"{first[0]}  naïve 日本  read   default  \\x1b[2J/  {first[1]}  {ends}\n"
        f"{second[0]}  root        admin  -        -         {second[1]}  -\n"
    )


@pytest.mark.parametrize(("typed", "left"), [(b"n\n", 1), (b"y\n", 0)])
def test_terminal_is_asked_before_tokens_are_disabled(
    tmp_path: Path, typed: bytes, left: int
) -> None:
    with place("direct", tmp_path) as tenantbase:
        made(tenantbase, "--scope", "admin")
        status, _, asked = at_a_terminal(tenantbase.database, "token", "disable", typed=typed)
        assert status == left and "let everyone in?" in asked
        assert len(tenantbase.records("token", "list")) == left


def test_terminal_is_asked_for_the_scope(tmp_path: Path) -> None:
    with place("direct", tmp_path) as tenantbase:
        for typed, status in ((b"read\n", 0), (b"root\n", 1)):
            done = at_a_terminal(tenantbase.database, "token", "create", typed=typed)
            assert done[0] == status and done[2].startswith("Scope: ")
            assert (TOKEN.search(done[1]) is not None) == (status == 0)
