"""Who the caller is, and the routes that manage tenants and tokens."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from tenantbase.access import Tenant, Token, TokenScope
from tenantbase.database import Database
from tenantbase.errors import Forbidden
from tenantbase.json_text import Decoder, parse
from tenantbase.web.answer import Answer
from tenantbase.web.caller import CALLER, Callers
from tenantbase.web.responses import collection, deleted, secret
from tenantbase.web.semantics.bodies import read_body
from tenantbase.web.semantics.targets import NOTHING, query
from tenantbase.web.settings import WebSettings

_BODY_BYTES: Final = 64 << 10


class PutTenant(msgspec.Struct, forbid_unknown_fields=True):
    """The limits of a tenant. One that is left out stays as it is."""

    max_entries: int | None | UnsetType = UNSET
    max_bytes: int | None | UnsetType = UNSET
    max_requests_per_second: int | None | UnsetType = UNSET


class CreateToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token to be made."""

    name: str
    scope: TokenScope
    tenant: str | None = None
    prefix: str | None = None
    ttl: float | None = None


_PUT_TENANT: Final = Decoder(PutTenant)
_CREATE_TOKEN: Final = Decoder(CreateToken)


class Administration:
    """The routes about tenants and tokens, all but one for administrators alone."""

    def __init__(self, database: Database, settings: WebSettings, callers: Callers) -> None:
        self._database = database
        self._settings = settings
        self._callers = callers

    async def whoami(self, request: web.Request) -> Answer:
        """``GET /v1/whoami``"""
        query(request, NOTHING)
        principal = request[CALLER].principal
        token = principal.token
        document = {
            "scope": principal.scope,
            "tenant": principal.tenant,
            "prefix": principal.prefix,
            "max_value_bytes": self._settings.limits.max_value_bytes,
            "token": token and {"id": token.id, "name": token.name, "expires_at": token.expires_at},
        }
        return collection(msgspec.json.encode(document))

    async def tenants(self, request: web.Request) -> Answer:
        """``GET /v1/tenants``"""
        _check(request)
        tenants = await self._database.tenants()
        return collection(msgspec.json.encode({"tenants": [*map(_tenant, tenants)]}))

    async def put_tenant(self, request: web.Request) -> Answer:
        """``PUT /v1/tenants/{name}``"""
        _check(request)
        body = await self._body(request)
        given = parse(_PUT_TENANT, body) if body else PutTenant()
        tenant, created = await self._database.put_tenant(
            request.match_info["name"],
            max_entries=given.max_entries,
            max_bytes=given.max_bytes,
            max_requests_per_second=given.max_requests_per_second,
        )
        await self._callers.refresh()
        answer = collection(msgspec.json.encode(_tenant(tenant)))
        if created:
            answer.status = 201
        return answer

    async def delete_tenant(self, request: web.Request) -> Answer:
        """``DELETE /v1/tenants/{name}``: 204 also if there was none."""
        _check(request)
        await self._database.delete_tenant(request.match_info["name"])
        await self._callers.refresh()
        return deleted()

    async def tokens(self, request: web.Request) -> Answer:
        """``GET /v1/tokens``"""
        _check(request)
        tokens = await self._database.tokens()
        return collection(msgspec.json.encode({"tokens": tokens}))

    async def create_token(self, request: web.Request) -> Answer:
        """``POST /v1/tokens``"""
        _check(request)
        given = parse(_CREATE_TOKEN, await self._body(request))
        token, made = await self._database.create_token(
            given.name, given.scope, given.tenant, given.prefix, given.ttl
        )
        await self._callers.refresh()
        return secret(msgspec.json.encode({**_token(token), "token": made}))

    async def revoke_token(self, request: web.Request) -> Answer:
        """``DELETE /v1/tokens/{id}``: 204 also if there was none."""
        _check(request)
        await self._database.revoke_token(request.match_info["id"])
        await self._callers.refresh()
        return deleted()

    async def _body(self, request: web.Request) -> bytes:
        return await read_body(request, _BODY_BYTES, self._settings.body_timeout)


def _check(request: web.Request) -> None:
    """Return if the caller is an administrator and there is no query. Raises Forbidden."""
    if not request[CALLER].principal.administers:
        raise Forbidden("this takes a token with the scope admin")
    query(request, NOTHING)


def _tenant(tenant: Tenant) -> dict[str, object]:
    return {
        "name": tenant.name,
        "entries": tenant.entries,
        "bytes": tenant.bytes,
        **msgspec.structs.asdict(tenant.limits),
    }


def _token(token: Token) -> dict[str, object]:
    return msgspec.structs.asdict(token)
