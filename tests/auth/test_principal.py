"""What a principal can reach."""

from __future__ import annotations

import pytest

from tenantbase.access import TokenScope
from tenantbase.auth.principal import ANYBODY, Principal
from tenantbase.errors import Forbidden, InvalidRequest
from tests.auth.samples import token


def bearer(scope: TokenScope, tenant: str | None = None, prefix: str | None = None) -> Principal:
    return Principal(token(scope, tenant, prefix), b"d" * 32)


@pytest.mark.parametrize("principal", [ANYBODY, bearer(TokenScope.ADMIN)])
def test_an_administrator_reaches_the_tenant_that_it_names(principal: Principal) -> None:
    assert principal.administers and principal.reads_figures
    for named, tenant in ((None, "default"), ("default", "default"), ("a", "a")):
        scope = principal.reach(named)
        assert scope.tenant == tenant
        assert scope.reads_all and scope.writes_all
    with pytest.raises(InvalidRequest):
        principal.reach("A")


@pytest.mark.parametrize("kind", [TokenScope.READ, TokenScope.WRITE])
def test_a_token_of_a_tenant_reaches_that_tenant_alone(kind: TokenScope) -> None:
    principal = bearer(kind, "a", "p/")
    assert not principal.administers and not principal.reads_figures
    for named in (None, "a"):
        scope = principal.reach(named)
        assert (scope.tenant, scope.allowed, scope.may_read) == ("a", "p/", True)
        assert scope.may_write == (kind is TokenScope.WRITE)
    refusals = set()
    for named in ("b", "default", "", "A", "a/", "a a", "\0"):
        with pytest.raises(Forbidden) as caught:
            principal.reach(named)
        refusals.add(str(caught.value))
    assert len(refusals) == 1, "the text must not depend on which tenants exist"


def test_a_scraper_of_figures_reaches_no_key() -> None:
    principal = bearer(TokenScope.METRICS)
    assert principal.reads_figures and not principal.administers
    scope = principal.reach(None)
    for reach in (scope.to_read, scope.to_write, scope.prefix_to_read, scope.prefix_to_write):
        with pytest.raises(Forbidden):
            reach("")
    with pytest.raises(Forbidden):
        principal.reach("default")


def test_a_token_is_valid_until_the_moment_it_expires() -> None:
    ends = Principal(token(TokenScope.ADMIN, expires_at=100.0), b"")
    assert not ends.expired(99.9)
    assert ends.expired(100.0)
    assert not ANYBODY.expired(1e12)
    assert not bearer(TokenScope.ADMIN).expired(1e12)
