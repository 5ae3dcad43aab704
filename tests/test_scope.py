"""Scoped keys."""

from __future__ import annotations

import pytest

from tenantbase.errors import Forbidden, InvalidRequest
from tenantbase.scope import DEFAULT, Scope, plain_key, tenant_of


@pytest.mark.parametrize("key", ["k", "a/b", "/", "default/a", "é\U0010ffff", "\x01"])
def test_a_key_comes_back_as_it_was(key: str) -> None:
    for scope in (DEFAULT, Scope("a"), Scope("0-_z")):
        scoped = scope.key(key)
        assert plain_key(scoped) == key
        assert tenant_of(scoped) == scope.tenant
        assert scoped.startswith(scope.prefix(""))


def test_no_two_pairs_of_tenant_and_key_have_one_scoped_key() -> None:
    tenants = ["a", "a-b", "a0", "aa", "b", "default"]
    keys = ["k", "b/k", "a/k", "/k", "-b/k", "0"]
    scoped = {Scope(tenant).key(key) for tenant in tenants for key in keys}
    assert len(scoped) == len(tenants) * len(keys)
    for tenant in tenants:
        mine = {key for key in scoped if key.startswith(Scope(tenant).prefix(""))}
        assert mine == {Scope(tenant).key(key) for key in keys}


@pytest.mark.parametrize("tenant", ["a", "0", "a-b_c", "z" * 64])
def test_names_of_tenants(tenant: str) -> None:
    assert Scope(tenant).key("k") == f"{tenant}/k"
    assert repr(Scope(tenant)) == f"Scope({tenant!r})"


@pytest.mark.parametrize("tenant", ["", "-a", "_", "A", "a/b", "é", "a\n", "a b", "z" * 65, "\0"])
def test_illegal_names_of_tenants(tenant: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Scope(tenant)
    assert caught.value.field == "tenant"


@pytest.mark.parametrize(
    ("scope", "reads", "writes"),
    [
        (Scope("a"), True, True),
        (Scope("a", may_write=False), True, False),
        (Scope("a", may_read=False), False, False),
        (Scope("a", allowed="p/"), True, True),
        (Scope("a", allowed="p/", may_write=False), True, False),
        (Scope("a", allowed="p/", may_read=False, may_write=False), False, False),
    ],
)
@pytest.mark.parametrize("text", ["", "k", "p", "p/", "p/k", "P/k", "/p/k", "a/p/k"])
def test_what_a_scope_allows(scope: Scope, reads: bool, writes: bool, text: str) -> None:
    within = text.startswith(scope.allowed)
    for allowed, to_key, to_prefix in (
        (reads, scope.to_read, scope.prefix_to_read),
        (writes, scope.to_write, scope.prefix_to_write),
    ):
        if allowed and within:
            assert to_key(text) == scope.key(text)
        else:
            with pytest.raises(Forbidden):
                to_key(text)
        if allowed and (within or not text):
            assert to_prefix(text) == "a/" + (text or scope.allowed)
        else:
            with pytest.raises(Forbidden):
                to_prefix(text)
