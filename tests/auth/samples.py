"""Tokens and states of access control for tests."""

from __future__ import annotations

from tenantbase.access import Access, Tenant, TenantLimits, Token, TokenScope
from tenantbase.auth.tokens import digest


def token(
    scope: TokenScope,
    tenant: str | None = None,
    prefix: str | None = None,
    *,
    id: str = "1",
    expires_at: float | None = None,
) -> Token:
    return Token(
        id=id,
        name="n",
        scope=scope,
        tenant=tenant,
        prefix=prefix,
        created_at=0.0,
        expires_at=expires_at,
    )


def access(version: int, closed: bool = True, *tenants: str, **tokens: Token) -> Access:
    """A state with ``default`` and these tenants; ``tokens`` are by their secrets."""
    names = ("default", *tenants)
    return Access(
        version,
        closed,
        {name: Tenant(name, 0, 0, TenantLimits()) for name in names},
        {digest(secret): each for secret, each in tokens.items()},
    )
