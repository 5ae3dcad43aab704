"""Tenants and tokens: the half of ``Client`` for administrators."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from tenantbase.access import Token
from tenantbase.client.exchange import Exchange
from tenantbase.client.figures import Stats
from tenantbase.client.identity import check_tenant
from tenantbase.client.results import Caller, NewToken, Tenant
from tenantbase.client.targets import PATH_SAFE
from tenantbase.client.wire import (
    JSON_HEADERS,
    CreateToken,
    PutTenant,
    Tenants,
    Tokens,
    check_finite,
    json_body,
    parse,
)


class Administration:
    """See ``Client``. All but ``whoami`` and ``stats`` need an ``admin`` token, once there is any
    token.
    """

    @property
    def _exchange(self) -> Exchange:
        raise NotImplementedError

    async def whoami(self) -> Caller:
        """What the server takes this client for, and what it may do."""
        return parse((await self._exchange.read("GET", "/v1/whoami")).body, Caller)

    async def stats(self) -> Stats:
        """The figures of the server. Needs a ``metrics`` or ``admin`` token, once there is any token."""
        return parse((await self._exchange.read("GET", "/v1/stats")).body, Stats)

    async def tenants(self) -> Sequence[Tenant]:
        """All tenants, with their usage and limits, in the order of their names."""
        return parse((await self._exchange.read("GET", "/v1/tenants")).body, Tenants).tenants

    async def put_tenant(
        self,
        name: str,
        *,
        max_entries: int | None | UnsetType = UNSET,
        max_bytes: int | None | UnsetType = UNSET,
        max_requests_per_second: int | None | UnsetType = UNSET,
    ) -> bool:
        """Create a tenant, or change its limits. Returns: whether it is new.

        A limit of None means no limit. One that is left out stays as it is; a new tenant has none.

        Args:
            name: 1 to 64 of ``a``-``z``, ``0``-``9``, ``-`` and ``_``, beginning with a letter or
                digit.
            max_bytes: of its keys and values together.
            max_requests_per_second: over all workers of a server.

        Raises:
            ValueError: this cannot be a name.
        """
        body = PutTenant(max_entries, max_bytes, max_requests_per_second)
        target = f"/v1/tenants/{check_tenant(name)}"
        answer = await self._exchange.write("PUT", target, json_body(body), JSON_HEADERS)
        return answer.status == 201

    async def delete_tenant(self, name: str) -> None:
        """Delete a tenant, its entries and its tokens. Deleting an absent one does nothing.

        Raises:
            Refused: it is ``default``, which always exists.
            ValueError: this cannot be a name.
        """
        await self._exchange.write("DELETE", f"/v1/tenants/{check_tenant(name)}")

    async def tokens(self) -> Sequence[Token]:
        """All tokens, in the order of their creation. Nobody can read their secrets again."""
        return parse((await self._exchange.read("GET", "/v1/tokens")).body, Tokens).tokens

    async def create_token(
        self,
        name: str,
        scope: str,
        *,
        tenant: str | None = None,
        prefix: str | None = None,
        ttl: float | None = None,
    ) -> NewToken:
        """Make a token. The first one closes the server to everyone without a token.

        Args:
            name: what it is for; shown in lists.
            scope: ``read``, ``write`` (which includes ``read``), ``metrics`` or ``admin``.
            tenant: whose keys a ``read`` or ``write`` token is for; None: those of ``default``.
            prefix: limits a ``read`` or ``write`` token to keys with this prefix.
            ttl: seconds until it expires; None: it does not.

        Raises:
            NoSuchTenant: there is no such tenant.
            OutcomeUnknown: a token may have been made: see ``tokens``, and revoke it.
        """
        check_finite(ttl=ttl)
        body = json_body(CreateToken(name, scope, tenant, prefix, ttl))
        return parse(
            (await self._exchange.write("POST", "/v1/tokens", body, JSON_HEADERS)).body, NewToken
        )

    async def revoke_token(self, id: str) -> None:
        """Revoke a token by its id. Within a second, no server accepts it. An absent one is ignored.

        Raises:
            ValueError: this cannot be an id. A token is not its id.
        """
        if not PATH_SAFE.fullmatch(id) or id.startswith("tb_"):
            raise ValueError("id must be the id of a token, as tokens() lists it")
        await self._exchange.write("DELETE", f"/v1/tokens/{id}")
