"""The web application: its routes, and the middleware around every request."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from tenantbase.auth.rates import Rates
from tenantbase.database import Database
from tenantbase.errors import TenantbaseError
from tenantbase.offload.runner import ParserProcess
from tenantbase.request_context import CURRENT
from tenantbase.web import sending
from tenantbase.web.caller import Callers, identify
from tenantbase.web.fast_path.borrowed import BorrowedTransport, own_transport
from tenantbase.web.forwarding import forwarded_scheme
from tenantbase.web.guard import Guard
from tenantbase.web.handlers.administration import Administration
from tenantbase.web.handlers.bulk import Bulk
from tenantbase.web.handlers.changing import Changing
from tenantbase.web.handlers.console import Console
from tenantbase.web.handlers.figures import Figures, Measured
from tenantbase.web.handlers.health import PROBES, Health
from tenantbase.web.handlers.increment import Increment
from tenantbase.web.handlers.lists import Lists
from tenantbase.web.handlers.raw import Raw
from tenantbase.web.handlers.values import Values
from tenantbase.web.handlers.watch import Watch
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.naming import CONTEXT, X_REQUEST_ID, context_of
from tenantbase.web.observer import Observer, RequestCells
from tenantbase.web.openapi.document import Description
from tenantbase.web.openapi.operations import OPERATIONS
from tenantbase.web.responses import common_headers
from tenantbase.web.semantics.bodies import HOLDING
from tenantbase.web.semantics.conditions import explained
from tenantbase.web.semantics.expectations import check_expectation, is_uninvited, send_nothing
from tenantbase.web.sending import error_response, respond
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.budget import Budget, Holding
from tenantbase.web.transport.turns import Turns

log = logging.getLogger("tenantbase.web")

_WHOLE_SERVER: Final = ("/", "*")  # targets of OPTIONS (RFC 9110, section 9.3.7)
DATABASE: Final = web.AppKey("database", Database)
CALLERS: Final = web.AppKey("callers", Callers)
GUARD: Final = web.AppKey("guard", Guard)
HEALTH: Final = web.AppKey("health", Health)
BUDGET: Final = web.AppKey("budget", Budget)
TURNS: Final = web.AppKey("turns", Turns)
OBSERVER: Final = web.AppKey("observer", Observer)

REQUEST_CELLS: Final = RequestCells(
    ((each.method, each.path) for each in OPERATIONS), lasting=["/v1/watch"]
)
"""The cells in which requests are counted, for each route."""


def create_app(
    database: Database,
    settings: WebSettings,
    lifecycle: Lifecycle,
    rates: Rates | None = None,
    observer: Observer | None = None,
    measured: Measured | None = None,
) -> web.Application:
    """The application. It owns nothing that must be closed.

    Args:
        rates: the requests of each tenant, counted by all workers; None: this is the only one.
        observer: told of finished requests, if there is one.
        measured: the sources of the figures; None: metrics are turned off.
    """
    guard = Guard(settings)
    rates = rates or Rates()
    lifecycle.connections.figures = rates.figures = database.figures
    callers = Callers(database, rates, may_be_open=settings.may_be_open)
    unread = lifecycle.connections.unread
    unread.limit = settings.max_inflight_bytes
    lifecycle.limit = settings.max_requests
    answering = partial(sending.answering, unread=unread)
    parser = ParserProcess()
    # For large bodies, the pieces of lists and bulk reads, and for sending events.
    turns = Turns(partial(_in_flight, lifecycle, callers))
    values = Values(database, settings, parser)
    bulk = Bulk(database, settings, parser, unread, callers, turns)
    increment = Increment(database, settings)
    changing = Changing(database, settings)
    lists = Lists(database, unread, callers, turns)
    raw = Raw(database, settings, parser)
    health = Health(database, lifecycle)
    watch = Watch(database, lifecycle, callers, turns)
    administration = Administration(database, settings, callers)
    description = Description(settings)
    figures = Figures(database, health, measured)
    console = Console(serves=settings.console)

    # Reserve a quarter for small bodies, unless the rest could not hold the largest body.
    spare = max(0, settings.max_inflight_bytes - settings.max_request_bytes)
    reserved = min(settings.max_inflight_bytes // 4, spare)
    budget = Budget(settings.max_inflight_bytes, reserved, turns)
    boundary = _boundary(guard, callers, lifecycle, health, budget, observer)
    app = web.Application(middlewares=[boundary])
    if observer is not None:
        app[OBSERVER] = observer
    app[DATABASE], app[GUARD], app[HEALTH] = database, guard, health
    app[BUDGET], app[CALLERS], app[TURNS] = budget, callers, turns
    routes = [
        web.post("/set-value", answering(values.set)),
        web.get("/get-value", answering(values.get)),
        web.delete("/delete-value", answering(values.delete)),
        web.get("/get-values", answering(lists.get_values)),
        web.get("/health-check", answering(health.check)),
        web.post("/get-values", answering(bulk.get)),
        web.post("/set-values", answering(bulk.set)),
        web.post("/delete-values", answering(bulk.delete)),
        web.post("/increment-value", answering(increment.increment)),
        web.post("/touch-value", answering(changing.touch)),
        web.post("/rename-value", answering(changing.rename)),
        web.get("/v1/count", answering(lists.count)),
        web.get("/v1/values", answering(lists.v1_values)),
        # Any character: a key may contain slashes and line breaks.
        web.get(r"/v1/values/{key:[\s\S]*}", answering(raw.get)),
        web.put(r"/v1/values/{key:[\s\S]*}", answering(raw.put)),
        web.delete(r"/v1/values/{key:[\s\S]*}", answering(raw.delete)),
        web.get("/v1/watch", answering(watch.watch)),
        web.get("/v1/whoami", answering(administration.whoami)),
        web.get("/v1/tenants", answering(administration.tenants)),
        web.put("/v1/tenants/{name}", answering(administration.put_tenant)),
        web.delete("/v1/tenants/{name}", answering(administration.delete_tenant)),
        web.get("/v1/tokens", answering(administration.tokens)),
        web.post("/v1/tokens", answering(administration.create_token)),
        web.delete("/v1/tokens/{id}", answering(administration.revoke_token)),
        web.get("/v1/stats", answering(figures.stats)),
        web.get("/metrics", answering(figures.metrics)),
        web.get("/livez", answering(health.alive)),
        web.get("/openapi.json", answering(description.openapi)),
        web.get("/docs", answering(description.docs)),
        web.get("/", answering(console.page)),
        web.get("/assets/{name}", answering(console.asset)),
    ]
    for route in routes:
        route.kwargs["expect_handler"] = send_nothing
    app.add_routes(routes)
    app.cleanup_ctx.append(callers.lifetime)
    app.cleanup_ctx.append(watch.lifetime)

    async def finish(request: web.Request, response: web.StreamResponse) -> None:
        if lifecycle.draining:
            response.force_close()
        common = common_headers(varies_by_origin=guard.has_cors, closes=lifecycle.draining)
        vary = common.pop(hdrs.VARY, None)
        response.headers.update(common)
        if guard.has_cors:
            response.headers.extend(guard.may_see(request.headers))
        if vary is not None:
            response.headers.add(hdrs.VARY, vary)  # the answer may vary by other headers, too
        context = request.get(CONTEXT) or context_of(request.headers)
        if context.echoed or response.status >= 400:
            response.headers[X_REQUEST_ID] = context.id
        if observer is not None:
            observer.began_answer(request, response.status)

    app.on_response_prepare.append(finish)
    return app


def _in_flight(lifecycle: Lifecycle, callers: Callers, tenant: str | None) -> int:
    """How many requests are in flight, except watches; None: of all tenants."""
    use = None if tenant is None else callers.use_of(tenant)
    # If there is only one tenant, nothing is counted for it.
    return lifecycle.active - lifecycle.idling if use is None else use.requests


def _is_of_server(request: web.Request) -> bool:
    """Whether it is OPTIONS for the whole server, which is a health check."""
    return request.method == hdrs.METH_OPTIONS and request.raw_path in _WHOLE_SERVER


def _is_probe(request: web.Request) -> bool:
    """Whether it asks for the state of the server, which is answered at any load."""
    return request.path in PROBES or _is_of_server(request)


def _name_client(request: web.Request, guard: Guard, lifecycle: Lifecycle) -> None:
    """Note for the log which client a trusted proxy's request comes from."""
    transport = request.transport
    client = guard.proxies.client(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
    if transport is not None and client is not None:
        lifecycle.connections.forwarded(own_transport(transport), client)


def _boundary(
    guard: Guard,
    callers: Callers,
    lifecycle: Lifecycle,
    health: Health,
    budget: Budget,
    observer: Observer | None,
) -> Middleware:
    """The middleware around every request: counts it, checks it, turns its errors into answers."""

    @web.middleware
    async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
        counted = lifecycle.begin()
        context = request[CONTEXT] = context_of(request.headers)
        working = CURRENT.set(context)
        if observer is not None:
            observer.begun(request)
        holding = use = None
        if request.body_exists:
            holding = request[HOLDING] = Holding(budget)
            if isinstance(request.transport, BorrowedTransport):
                request.transport.judged()
        try:
            if lifecycle.active > lifecycle.limit and not _is_probe(request):
                raise lifecycle.overloaded()
            scheme = None
            if guard.proxies and guard.proxies.trusts(request.transport):
                scheme = forwarded_scheme(request.headers)
                _name_client(request, guard, lifecycle)
            guard.check(request.method, request.raw_path, request.headers, scheme)
            check_expectation(request)
            if preflight := guard.preflight(request.method, request.headers):
                return await respond(request, preflight)
            if _is_of_server(request):
                return await respond(request, await health.options(request.raw_path))
            caller = identify(request, callers)
            if caller is not None and caller.use is not None:
                if not lifecycle.has_place(caller.use, begun=1):
                    raise lifecycle.overloaded()
                use = caller.use
                use.requests += 1
                lifecycle.tenants.note(use)
            return await handler(request)
        except (ConnectionError, asyncio.CancelledError):
            if observer is not None:
                observer.cut(request)
            raise  # the client is gone; aiohttp's own errors for this are subclasses
        except Exception as error:  # the outermost handler: every failure has an answer
            if request.writer.output_size:
                # Too late for another status. Cutting the connection tells the client of the failure.
                known = isinstance(error, TenantbaseError)
                log.warning("an answer was cut: %s", error, exc_info=None if known else error)
                if observer is not None:
                    observer.answered(request, 500)
                raise ConnectionAbortedError("the answer was cut") from error
            response = error_response(request, explained(request, error))
            if is_uninvited(request):
                # Its body may or may not follow, so the start of the next request is unknown.
                response.force_close()
            return response
        finally:
            if holding is not None:
                holding.release()
            lifecycle.end(counted)
            CURRENT.reset(working)
            if use is not None:
                use.requests -= 1

    return boundary
