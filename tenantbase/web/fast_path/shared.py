"""What all connections of the fast path share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import hdrs

from tenantbase.database import Database
from tenantbase.web.caller import X_TENANT, Callers, Credentials
from tenantbase.web.fast_path.answering import PlainAnswers
from tenantbase.web.fast_path.pages import Pages
from tenantbase.web.fast_path.parser import ROUTES, RequestParser
from tenantbase.web.fast_path.tending import OpenConnections
from tenantbase.web.fast_path.writer import ResponseWriter
from tenantbase.web.forwarding import X_FORWARDED_PROTO
from tenantbase.web.guard import Guard
from tenantbase.web.handlers.health import Health
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.observer import Observer
from tenantbase.web.problems import HttpError
from tenantbase.web.semantics.negotiation import accepted_coding
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.budget import Budget
from tenantbase.web.transport.turns import Turns


class FastPath:
    """What all connections of the fast path share.

    Args:
        general: makes aiohttp's protocol; the argument says whether the connection is only lent.
        observer: told of each request answered here, if there is one.
    """

    def __init__(
        self,
        database: Database,
        settings: WebSettings,
        lifecycle: Lifecycle,
        guard: Guard,
        callers: Callers,
        health: Health,
        budget: Budget,
        turns: Turns,
        general: Callable[[bool], asyncio.Protocol],
        observer: Observer | None,
    ) -> None:
        self.settings = settings
        self.observer = observer
        if observer is not None:
            series = observer.requests.series
            self.series = {route: series(route.method, route.template) for route in ROUTES}
            self.unparsed = series("")
        self.lifecycle = lifecycle
        self.general = general
        self.unread = lifecycle.connections.unread
        self.connections: Final = OpenConnections()
        self._guard = guard
        self._callers = callers
        # The checks of a request's head run once for each block of header fields, not for each
        # request.
        self.parse = RequestParser(self._judge).parse
        writer = ResponseWriter(lifecycle, varies_by_origin=guard.has_cors)
        pages = Pages(database, callers, turns)
        self.answers = PlainAnswers(database, callers.directory, health, writer, lifecycle, pages)
        self.budget = budget
        self._writer = writer

    def name_client(self, transport: asyncio.Transport, asked: bytes) -> None:
        """Note for the log which client a trusted proxy's request comes from.

        Needed only for a client that reads slowly: the log names no other.
        """
        proxies = self._guard.proxies
        if proxies.trusts(transport) and (client := proxies.client_in(asked)) is not None:
            self.lifecycle.connections.forwarded(transport, client)

    def _judge(self, headers: Mapping[str, str]) -> Credentials | None:
        try:
            self._guard.check(hdrs.METH_POST, "/", headers)
        except HttpError:
            return None
        if self._guard.proxies and hdrs.ORIGIN in headers and X_FORWARDED_PROTO in headers:
            return None  # whether it counts depends on the connection
        if self._guard.has_cors and hdrs.ORIGIN in headers:
            return None  # pages of allowed origins need CORS headers, which aiohttp's path adds
        return Credentials(
            self._callers,
            headers.get(hdrs.AUTHORIZATION),
            headers.get(X_TENANT),
            compresses=accepted_coding(headers.get(hdrs.ACCEPT_ENCODING)) is not None,
        )
