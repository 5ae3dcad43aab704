"""Where both HTTP paths report finished requests, for metrics, log and traces.

Metrics are counted right here. Requests that are answered by the same batch and differ in nothing
that is counted are one *group*: each adds one to its size, and the group is counted when the batch has
been delivered, before uvloop hands the answers to the kernel. The log is told only of requests that
took long enough for it: if it wants slow ones, all others cost it one comparison. Without metrics, log
and tracer there is no observer, and no request is timed.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from http import HTTPStatus
from time import monotonic_ns
from typing import Final, NamedTuple

from aiohttp import web

from tenantbase.figures import (
    ALL_REQUESTS,
    ERRORS,
    FINE_BOUNDS,
    FIRST_REQUEST_CELL,
    REQUEST_BOUNDS,
    Histogram,
    private_cells,
)
from tenantbase.request_context import RequestContext
from tenantbase.waits import DELIVERY
from tenantbase.web.naming import CONTEXT
from tenantbase.web.semantics.expectations import is_unrouted

UNMATCHED: Final = "unmatched"
"""The route of a request whose target no route matches, or that is not valid HTTP."""
OTHER_METHOD: Final = "other"
CLIENT_GONE: Final = 499
"""The status of a request whose client left before the answer, as in nginx."""

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", OTHER_METHOD)
_STATUSES: Final = (*(status.value for status in HTTPStatus), CLIENT_GONE)
_STATUS_PLACES: Final = {status: place for place, status in enumerate(_STATUSES)}
_ODD_STATUS: Final = _STATUS_PLACES[500]  # never needed: only listed statuses are sent
_FAILURES: Final = (500, 503)
_SUM: Final = len(REQUEST_BOUNDS) + 1  # the cell of the sum in a route's histogram
_ALL: Final = ALL_REQUESTS.first
_BEGAN: Final = web.RequestKey("began", int)
_STATUS: Final = web.RequestKey("status", int)


class Finished(NamedTuple):
    """A request that has ended, for the log.

    Attributes:
        route: the template of its route, or UNMATCHED.
        status: of the answer, or CLIENT_GONE.
        nanoseconds: from reading its head to handing the end of its answer to the kernel.
        sent: bytes of the answer, including its head.
        request: aiohttp's request, or its bytes on the fast path.
        context: its id and trace; None if neither was needed yet.
        transport: its connection; None if that is lost.
        ended: when, by ``time.monotonic_ns``.
        lasts: its client decided how long it took, as with watches.
    """

    method: str
    route: str
    status: int
    nanoseconds: int
    sent: int
    request: web.BaseRequest | bytes
    context: RequestContext | None
    transport: asyncio.BaseTransport | None
    ended: int
    lasts: bool


class Series(NamedTuple):
    """The cells for requests of one method on one route.

    Attributes:
        statuses: the cell of the first status.
        durations: the first cell of the route's histogram, which its methods share.
        lasts: clients decide how long such requests take, so they say nothing about the service's
            speed.
    """

    method: str
    route: str
    statuses: int
    durations: int
    lasts: bool


class RequestCells:
    """The cells for all requests. All workers of a server have the same.

    Args:
        routes: method and template of each route.
        lasting: templates of the routes whose clients decide how long an answer takes.
    """

    def __init__(
        self, routes: Iterable[tuple[str, str]], lasting: Collection[str] = frozenset()
    ) -> None:
        pairs = {(method.upper(), route): None for method, route in routes}
        pairs |= {("HEAD", route): None for method, route in pairs if method == "GET"}
        pairs |= {(method, UNMATCHED): None for method in _METHODS}
        self._series: dict[tuple[str, str], Series] = {}
        self.durations: dict[str, Histogram] = {}
        end = FIRST_REQUEST_CELL
        for method, route in pairs:
            if route not in self.durations:
                self.durations[route] = Histogram(end, REQUEST_BOUNDS)
                end = self.durations[route].end
            first = self.durations[route].first
            self._series[method, route] = Series(method, route, end, first, route in lasting)
            end += len(_STATUSES)
        self.end: Final = end

    def series(self, method: str, route: str = UNMATCHED) -> Series:
        """The series of a method on a route."""
        return self._series.get((method, route)) or self._series[OTHER_METHOD, UNMATCHED]

    def counts(self, cells: list[int]) -> Iterator[tuple[Series, int, int]]:
        """Every series that has had requests, with each of its statuses and their number.

        The server's own failures are included from 0 on, because Prometheus does not see an
        increase from a series that did not exist.
        """
        for series in self._series.values():
            counts = cells[series.statuses : series.statuses + len(_STATUSES)]
            if any(counts):
                for status, count in zip(_STATUSES, counts, strict=True):
                    if count or status in _FAILURES:
                        yield series, status, count


class Observer:
    """Told of each request that has ended. Belongs to one event loop.

    Args:
        requests: where requests are counted.
        cells: the worker's figures.

    Attributes:
        log_from: the log is told of requests that took at least this many nanoseconds.
        log: called with each of those.
        turn: when the running turn of the event loop began its first request, by
            ``time.monotonic_ns``; 0: it has begun none. See ``begin``.
    """

    def __init__(self, requests: RequestCells, cells: memoryview | None = None) -> None:
        self._cells = private_cells(requests.end) if cells is None else cells
        self.requests = requests
        self.log_from: float = math.inf
        self.log: Callable[[Finished], object] = lambda finished: None
        self.turn = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        # The current group: what its requests have in common, and how many they are.
        self._series: Series | None = None
        self._status = 0
        self._began = 0
        self._ended = 0
        self._took = 0
        self._size = 0

    def begin(self) -> int:
        """Begin the first request of this turn of the event loop. Returns: when.

        All requests of a turn begin together: their data had arrived before any was looked at.
        """
        if self._loop is None:
            # Looked up once: before Python 3.12, every look-up is a system call.
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._end_turn)
        self.turn = monotonic_ns()
        return self.turn

    def _end_turn(self) -> None:
        self.turn = 0

    def finished(self, series: Series, status: int, began: int) -> bool:
        """A request has ended. Returns: whether the log wants it; see ``log_last``.

        Args:
            began: when it began, by ``time.monotonic_ns``.
        """
        if series is self._series and status == self._status and began == self._began:
            self._size += 1
        else:
            self._begin_group(series, status, began)
        return self._took >= self.log_from

    def log_last(
        self,
        series: Series,
        status: int,
        sent: int,
        request: web.BaseRequest | bytes,
        context: RequestContext | None,
        transport: asyncio.BaseTransport | None,
    ) -> None:
        """Log the request that ``finished`` was called for last.

        Args:
            sent: bytes of the answer.
        """
        method, route, _, _, lasts = series
        took, ended = self._took, self._ended
        self.log(
            Finished(method, route, status, took, sent, request, context, transport, ended, lasts)
        )

    def _begin_group(self, series: Series, status: int, began: int) -> None:
        self._count_group()
        self._series, self._status, self._began = series, status, began
        self._ended = monotonic_ns()
        self._took = self._ended - began
        self._size = 1
        DELIVERY.at_end(self._count_group)

    def _count_group(self) -> None:
        if self._series is None:
            return
        cells, took, size = self._cells, self._took, self._size
        _, _, statuses, durations, lasts = self._series
        # ``Histogram.add`` inlined, because a call costs more than the additions.
        cells[statuses + _STATUS_PLACES.get(self._status, _ODD_STATUS)] += size
        cells[durations + bisect_left(REQUEST_BOUNDS, took)] += size
        cells[durations + _SUM] += took * size
        if not lasts:
            cells[_ALL + bisect_left(FINE_BOUNDS, took)] += size
            if self._status >= 500:
                cells[ERRORS] += size
        self._series = None

    # aiohttp's path

    def begun(self, request: web.BaseRequest) -> None:
        """The request has been read, except for its body."""
        request[_BEGAN] = monotonic_ns()

    def began_answer(self, request: web.BaseRequest, status: int) -> None:
        """The head of its answer is about to be sent."""
        request[_STATUS] = status

    def cut(self, request: web.BaseRequest) -> None:
        """Its client is gone, which is also how a watch ends."""
        self.answered(request, request.get(_STATUS, CLIENT_GONE))

    def answered(self, request: web.BaseRequest, status: int) -> None:
        """Its answer has been sent, or has been cut short by an error (500)."""
        began = request.get(_BEGAN)
        resource = None
        if began is None:
            began = monotonic_ns()  # not valid HTTP
        elif isinstance(request, web.Request) and not is_unrouted(request):
            resource = request.match_info.route.resource
        route = UNMATCHED if resource is None else resource.canonical
        series = self.requests.series(request.method, route)
        if self.finished(series, status, began):
            sent, context = request.writer.output_size, request.get(CONTEXT)
            self.log_last(series, status, sent, request, context, request.transport)
