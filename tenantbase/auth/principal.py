"""Who makes a request, and what that allows."""

from __future__ import annotations

from typing import Final

import msgspec

from tenantbase.access import Token, TokenScope
from tenantbase.errors import Forbidden
from tenantbase.scope import DEFAULT, Scope


class Principal(msgspec.Struct, frozen=True):
    """The bearer of a token; without one, anybody, who is an administrator of an open database.

    Attributes:
        digest: of the token's secret.
    """

    token: Token | None = None
    digest: bytes = b""

    @property
    def scope(self) -> TokenScope:
        """What kind of requests it may make."""
        return TokenScope.ADMIN if self.token is None else self.token.scope

    @property
    def tenant(self) -> str | None:
        """The tenant that it belongs to; None for an administrator and a scraper of figures."""
        return None if self.token is None else self.token.tenant

    @property
    def prefix(self) -> str | None:
        """The prefix of the keys that it is limited to; None: it is not."""
        return None if self.token is None else self.token.prefix

    @property
    def administers(self) -> bool:
        """Whether it manages tenants and tokens, and reaches every tenant."""
        return self.scope is TokenScope.ADMIN

    @property
    def reads_figures(self) -> bool:
        """Whether it may see the figures of the whole service."""
        return self.scope in (TokenScope.ADMIN, TokenScope.METRICS)

    def expired(self, now: float) -> bool:
        """Whether its token is no longer valid at ``now`` (Unix seconds)."""
        ends = None if self.token is None else self.token.expires_at
        return ends is not None and ends <= now

    def reach(self, named: str | None) -> Scope:
        """What it can reach in the tenant that a request names; None: the request names none.

        Raises:
            Forbidden: the tenant is not its own. Does not reveal whether that tenant exists.
            InvalidRequest: this cannot be the name of a tenant.
        """
        if self.administers:
            return DEFAULT if named is None else Scope(named)
        if named is not None and named != self.tenant:
            raise Forbidden("the token does not belong to the tenant that X-Tenant names")
        if self.tenant is None:
            return NOTHING
        may_write = self.scope is TokenScope.WRITE
        return Scope(self.tenant, allowed=self.prefix or "", may_write=may_write)


ANYBODY: Final = Principal()
"""Every caller of an open database."""

NOTHING: Final = Scope(may_read=False, may_write=False)
"""Reaches no key."""
