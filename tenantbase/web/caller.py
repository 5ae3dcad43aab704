"""Who makes a request, from ``Authorization`` and ``X-Tenant``, for both HTTP paths.

Tenants and tokens are known from memory: a task asks the database several times a second whether they
have changed. Nothing is asked for a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase.auth.directory import Directory
from tenantbase.auth.principal import ANYBODY, Principal
from tenantbase.auth.rates import Bucket, Rates
from tenantbase.background import running
from tenantbase.database import Database
from tenantbase.errors import (
    Forbidden,
    InvalidRequest,
    NoSuchTenant,
    RateLimited,
    StoreError,
    TenantbaseError,
    Unauthenticated,
)
from tenantbase.outage import Outage
from tenantbase.scope import Scope
from tenantbase.web.semantics.expectations import is_unrouted
from tenantbase.web.transport.tenant_use import TenantUse

log = logging.getLogger("tenantbase.web")

PUBLIC: Final = frozenset(
    {"/health-check", "/livez", "/openapi.json", "/docs", "/", "/assets/{name}"}
)
"""Routes that need no token."""
ADMINISTRATIVE: Final = frozenset(
    {
        "/v1/tenants",
        "/v1/tenants/{name}",
        "/v1/tokens",
        "/v1/tokens/{id}",
        "/metrics",
        "/v1/stats",
    }
)
"""Routes that are not requests of a tenant, and do not count against its rate."""

X_TENANT: Final = "X-Tenant"
# Four times a second, so that one may be late: clients are promised one second.
REFRESH_SECONDS: Final = 0.25
_BEARER: Final = "bearer"


class Caller(msgspec.Struct, frozen=True):
    """The caller of a request, in one tenant.

    Attributes:
        scope: what it can reach there.
        bucket: the tenant's limit of requests; None: it has none.
        use: what the tenant uses of this server; None: there is no other tenant to share it with.
    """

    principal: Principal
    scope: Scope
    bucket: Bucket | None
    use: TenantUse | None

    def count(self) -> None:
        """Count a request of the tenant. Raises RateLimited."""
        if self.bucket is not None and (wait := self.bucket.take()):
            raise RateLimited(self.bucket.rate, wait)


CALLER: Final = web.RequestKey("caller", Caller)
"""Where a request keeps its caller."""


def scope_of(request: web.BaseRequest) -> Scope:
    """What the caller of a request can reach."""
    return request[CALLER].scope


class Callers:
    """Works out the callers of one server's requests.

    Args:
        may_be_open: whether a database without tokens lets everybody in.
        rates: the requests of each tenant, counted by all workers together.
    """

    def __init__(self, database: Database, rates: Rates, *, may_be_open: bool) -> None:
        self.directory: Final = Directory(may_be_open=may_be_open)
        self._database = database
        self._rates = rates
        self._refreshing = asyncio.Lock()
        self._held: dict[object, tuple[Caller, Callable[[], object]]] = {}
        self._uses: dict[str, TenantUse] = {}

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """For the application's ``cleanup_ctx``. Raises StoreError: it cannot be known who may call."""
        await self.refresh()
        async with (
            running(self._follow, "refresh of tenants and tokens"),
            running(self._expire, "expiry of tokens"),
        ):
            yield

    async def refresh(self) -> None:
        """Load changes from the database. Raises StoreError: then nothing changes here."""
        async with self._refreshing:  # an older state must not replace a newer one
            access = await self._database.access(self.directory.version)
            if access is not None:
                self.directory.update(access, self._database.now())
                names = access.tenants if len(access.tenants) > 1 else ()
                self._uses = {name: self._uses.get(name) or TenantUse() for name in names}
                self._end_refused()

    async def _follow(self) -> None:
        outage = Outage(log, "changes to tenants and tokens are learned of again")
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
                outage.over()
            except StoreError as error:
                outage.met("cannot learn of changes to tenants and tokens: %s", error)

    async def _expire(self) -> None:
        """Apart from the database, which may hang."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            began = self.directory.generation
            self.directory.expire(self._database.now())
            if self.directory.generation != began:
                self._end_refused()

    def of(self, authorization: Sequence[str], tenant: Sequence[str]) -> Caller:
        """The caller of a request.

        Args:
            authorization, tenant: the values of its header fields ``Authorization`` and
                ``X-Tenant``, of which there should be at most one each.

        Raises:
            Unauthenticated, Forbidden, NoSuchTenant, InvalidRequest: there is none.
        """
        principal = self._principal(authorization)
        named = tenant[0] if tenant else None
        if len(tenant) > 1:
            if not principal.administers:
                raise Forbidden("the token does not belong to the tenant that X-Tenant names")
            raise InvalidRequest("X-Tenant is given more than once", X_TENANT)
        try:
            scope = principal.reach(named)
        except InvalidRequest as error:
            raise InvalidRequest(error.detail, X_TENANT) from None
        known = self.directory.tenant(scope.tenant)
        if known is None and principal.administers:
            raise NoSuchTenant(scope.tenant)
        rate = None if known is None else known.limits.max_requests_per_second
        bucket = None if rate is None else self._rates.bucket(scope.tenant, rate)
        return Caller(principal, scope, bucket, self._uses.get(scope.tenant))

    def use_of(self, tenant: str) -> TenantUse | None:
        """What a tenant uses of this server; None: there is no other tenant to share it with."""
        return self._uses.get(tenant)

    def _principal(self, authorization: Sequence[str]) -> Principal:
        if not self.directory.closed:
            return ANYBODY
        if len(authorization) == 1:
            scheme, _, secret = authorization[0].strip().partition(" ")
            principal = self.directory.bearer(secret.strip(), self._database.now())
            if principal is not None and scheme.lower() == _BEARER:
                return principal
        raise Unauthenticated()

    def admits(self, caller: Caller) -> bool:
        """Whether this caller may still make requests."""
        if not self.directory.admits(caller.principal, self._database.now()):
            return False
        return self.directory.tenant(caller.scope.tenant) is not None

    @contextmanager
    def holding(self, caller: Caller, end: Callable[[], object]) -> Iterator[None]:
        """For an answer that may take long: ``end`` is called if the caller is no longer admitted."""
        key = object()
        self._held[key] = caller, end
        try:
            if not self.admits(caller):
                end()
            yield
        finally:
            self._held.pop(key, None)

    def _end_refused(self) -> None:
        for key, (caller, end) in list(self._held.items()):
            if not self.admits(caller):
                del self._held[key]
                end()


class Credentials:
    """The caller in a block of header fields, as of its last look-up.

    Args:
        authorization, tenant: the values of ``Authorization`` and ``X-Tenant``; None: not given.
        compresses: whether long answers to this caller are compressed.

    Attributes:
        caller: None: aiohttp's path must say why there is none.
        generation: of the directory that ``caller`` was found in.
        use: of the caller's tenant.
        private: the answer is for this caller alone.
    """

    __slots__ = (
        "caller",
        "generation",
        "use",
        "private",
        "compresses",
        "_callers",
        "_authorization",
        "_tenant",
    )

    def __init__(
        self,
        callers: Callers,
        authorization: str | None,
        tenant: str | None,
        compresses: bool = False,
    ) -> None:
        self.compresses = compresses
        self._callers = callers
        self._authorization = () if authorization is None else (authorization,)
        self._tenant = () if tenant is None else (tenant,)
        self.private = authorization is not None
        self.caller: Caller | None = None
        self.use: TenantUse | None = None
        self.generation = -1

    def look_up(self) -> None:
        """Find the caller in the current generation of the directory."""
        self.generation = self._callers.directory.generation
        try:
            self.caller = self._callers.of(self._authorization, self._tenant)
        except TenantbaseError:
            self.caller = None
        self.use = None if self.caller is None else self.caller.use


def identify(request: web.Request, callers: Callers) -> Caller | None:
    """Find the caller, unless the route is for everybody, and count the request for its tenant.

    Returns: the caller, if the request counts as one of its tenant.

    Raises:
        Unauthenticated, Forbidden, NoSuchTenant, InvalidRequest, RateLimited: it may not go on.
    """
    resource = None if is_unrouted(request) else request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    if route in PUBLIC:
        return None
    headers = request.headers
    caller = callers.of(headers.getall(hdrs.AUTHORIZATION, ()), headers.getall(X_TENANT, ()))
    request[CALLER] = caller
    if route in ADMINISTRATIVE:
        return None
    caller.count()
    return caller
