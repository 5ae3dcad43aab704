"""Which secrets a process lets in."""

from __future__ import annotations

from tenantbase.access import TokenScope
from tenantbase.auth.directory import Directory
from tenantbase.auth.principal import ANYBODY
from tests.auth.samples import access, token

ADMIN = token(TokenScope.ADMIN)
ENDS = token(TokenScope.READ, "default", id="2", expires_at=100.0)


def test_nobody_is_let_in_before_the_state_is_known() -> None:
    directory = Directory()
    assert directory.closed and directory.version is None
    assert not directory.admits(ANYBODY, 0)
    assert directory.bearer("x", 0) is None
    assert directory.tenant("default") is None


def test_an_open_database_admits_anybody_unless_it_may_not_be_open() -> None:
    directory = Directory()
    directory.update(access(1, False), 0)
    assert not directory.closed and directory.admits(ANYBODY, 0)
    guarded = Directory(may_be_open=False)
    guarded.update(access(1, False), 0)
    assert guarded.closed and not guarded.admits(ANYBODY, 0)


def test_a_database_stays_closed_without_tokens() -> None:
    directory = Directory()
    directory.update(access(3, True), 0)
    assert directory.closed and not directory.admits(ANYBODY, 0)


def test_a_secret_is_known_until_its_token_is_revoked() -> None:
    directory = Directory()
    directory.update(access(1, s=ADMIN, other=ENDS), 0)
    principal = directory.bearer("s", 0)
    assert principal is not None and principal.token == ADMIN
    assert directory.bearer("S", 0) is None and directory.bearer("", 0) is None
    assert directory.admits(principal, 0)
    directory.update(access(2, other=ENDS), 0)
    assert directory.bearer("s", 0) is None and not directory.admits(principal, 0)
    assert directory.version == 2


def test_a_token_that_expires_starts_a_generation_and_is_refused() -> None:
    directory = Directory()
    directory.update(access(1, s=ADMIN, ends=ENDS), 50)
    began = directory.generation
    principal = directory.bearer("ends", 99)
    assert principal is not None
    directory.expire(99)
    assert directory.generation == began and directory.admits(principal, 99)
    assert directory.bearer("ends", 100) is None, "even before the generation changes"
    directory.expire(100)
    assert directory.generation == began + 1 and not directory.admits(principal, 100)
    directory.expire(101)
    assert directory.generation == began + 1, "it has expired once"


def test_every_new_state_is_a_generation() -> None:
    directory = Directory()
    seen = {directory.generation}
    for version, tenants in ((1, ()), (2, ("a",)), (3, ())):
        directory.update(access(version, True, *tenants), 0)
        seen.add(directory.generation)
        assert (directory.tenant("a") is not None) == bool(tenants)
    assert len(seen) == 4


def test_another_token_with_the_same_secret_is_another_principal() -> None:
    directory = Directory()
    directory.update(access(1, s=token(TokenScope.WRITE, "default")), 0)
    principal = directory.bearer("s", 0)
    directory.update(access(2, s=token(TokenScope.READ, "default")), 0)
    assert principal is not None and not directory.admits(principal, 0)
