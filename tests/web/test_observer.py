"""Every request that has ended is observed, once, on both HTTP paths."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from time import monotonic_ns

import pytest
from aiohttp import web

from tenantbase.figures import ALL_REQUESTS, ERRORS, REQUEST_BOUNDS, SECOND
from tenantbase.waits import DELIVERY, Timing
from tenantbase.web.app import REQUEST_CELLS
from tenantbase.web.observer import CLIENT_GONE, Finished, Observer
from tests.servers import poll_async
from tests.service import opened, served, web_settings
from tests.wire import Wire, request

LARGE = "x" * 300_000

# Requests on one connection, each with the route it is counted for, and its status.
ROWS = [
    (request("POST", "/set-value", '{"key": "a", "value": 1}'), "/set-value", 200),
    (request("GET", "/get-value?key=a"), "/get-value", 200),
    (request("GET", "/get-value?key=none"), "/get-value", 404),
    (request("GET", "/get-value", '{"key": "a"}'), "/get-value", 200),
    (request("HEAD", "/get-value?key=a"), "/get-value", 200),
    (request("GET", "/get-value?key=a", headers={"If-Match": '"0"'}), "/get-value", 412),
    (request("POST", "/set-value", "{"), "/set-value", 400),
    (request("PUT", "/v1/values/a/b", LARGE), "/v1/values/{key}", 201),
    (request("GET", "/v1/values/a/b"), "/v1/values/{key}", 200),
    (request("DELETE", "/v1/values/a/b"), "/v1/values/{key}", 204),
    (request("DELETE", "/delete-value?key=a"), "/delete-value", 204),
    (request("GET", "/get-values"), "/get-values", 200),
    (request("GET", "/health-check"), "/health-check", 200),
    (request("GET", "/secret/path"), "unmatched", 404),
    (request("POST", "/get-value"), "unmatched", 405),
    (request("PUT", "/none", "x", {"Expect": "100-continue"}), "unmatched", 404),
]
METHODS = [data.partition(b" ")[0].decode() for data, _, _ in ROWS]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
async def test_each_request_is_observed_once(tmp_path: Path, fast: bool) -> None:
    cells = memoryview(bytearray(8 * REQUEST_CELLS.end)).cast("Q")
    observer = Observer(REQUEST_CELLS, cells)
    seen: list[Finished] = []
    observer.log_from, observer.log = 0, seen.append
    async with opened(tmp_path / "x.db") as cache:
        settings = web_settings(fast_path=fast)
        # The heartbeat finds out that a watcher has left.
        async with served(cache, settings, observer=observer, heartbeat=0.05) as server:
            sizes = []
            for data, _, _ in ROWS:
                async with await Wire.connect(server.port) as wire:
                    await wire.send(data.replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1))
                    wire.writer.write_eof()
                    sizes.append(len(await wire.reader.read()))
            async with await Wire.connect(server.port) as wire:
                await wire.send(b"this is not HTTP\r\n\r\n")
                sizes.append(len(await wire.reader.read()))
            async with await Wire.connect(server.port) as wire:
                await wire.send(request("GET", "/v1/watch"))
                await wire.reader.readuntil(b"\n\n")
            await poll_async(lambda: len(seen) == len(ROWS) + 2, "the watch has ended")
    expected = [(METHODS[at], route, status) for at, (_, route, status) in enumerate(ROWS)]
    expected += [("other", "unmatched", 400), ("GET", "/v1/watch", 200)]
    assert [(each.method, each.route, each.status) for each in seen] == expected
    assert [each.sent for each in seen[:-1]] == sizes
    assert all(each.nanoseconds >= 0 for each in seen)
    heads = [each.request for each in seen if isinstance(each.request, bytes)]
    assert len(heads) == (7 if fast else 0)
    # The figures say the same.
    figures = cells.tolist()
    counted = {
        (series.method, series.route, status): count
        for series, status, count in REQUEST_CELLS.counts(figures)
        if count
    }
    assert counted == Counter(expected)
    for route, histogram in REQUEST_CELLS.durations.items():
        buckets = figures[histogram.first : histogram.sum]
        of_route = [each for each in seen if each.route == route]
        assert sum(buckets) == len(of_route)
        assert figures[histogram.sum] == sum(each.nanoseconds for each in of_route)
    assert sum(figures[ALL_REQUESTS.first : ALL_REQUESTS.sum]) == len(seen) - 1  # without the watch
    assert figures[ERRORS] == 0


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
async def test_a_client_that_leaves_early_and_an_answer_that_breaks(
    tmp_path: Path, fast: bool
) -> None:
    observer = Observer(REQUEST_CELLS)
    seen: list[Finished] = []
    observer.log_from, observer.log = 0, seen.append

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"part")
        raise ValueError("broken")

    def prepare(app: web.Application) -> None:
        app.router.add_get("/broken", broken)

    settings = web_settings(fast_path=fast)
    async with opened(tmp_path / "x.db") as cache:
        async with served(cache, settings, observer=observer, prepare=prepare) as server:
            async with await Wire.connect(server.port) as wire:
                await wire.send(request("GET", "/broken"))
                await wire.reader.read()
            await poll_async(lambda: len(seen) == 1, "it has ended")
            assert (seen[0].route, seen[0].status) == ("unmatched", 500)
            async with await Wire.connect(server.port) as wire:
                wire.writer.write(request("PUT", "/v1/values/k", headers={"Content-Length": "9"}))
                await poll_async(lambda: server.lifecycle.active == 1, "it has begun")
            await poll_async(lambda: len(seen) == 2, "it has ended")
            assert (seen[1].route, seen[1].status) == ("/v1/values/{key}", CLIENT_GONE)


def test_a_log_is_told_of_slow_requests_alone() -> None:
    observer = Observer(REQUEST_CELLS)
    seen: list[Finished] = []
    observer.log_from, observer.log = SECOND, seen.append
    series = REQUEST_CELLS.series("GET", "/get-value")
    assert not observer.finished(series, 200, monotonic_ns())
    assert observer.finished(series, 200, monotonic_ns() - 2 * SECOND)
    observer.log_last(series, 200, 1, b"slow", None, None)
    assert [each.request for each in seen] == [b"slow"]
    assert seen[0].nanoseconds >= 2 * SECOND
    assert REQUEST_BOUNDS[-1] == 30 * SECOND


def counted(cells: memoryview) -> tuple[int, int, int, dict[int, int]]:
    """Of ``GET /get-value``: requests by duration, nanoseconds in all, all requests, statuses."""
    figures = cells.tolist()
    durations = REQUEST_CELLS.durations["/get-value"]
    of_route = sum(figures[durations.first : durations.sum])
    everything = sum(figures[ALL_REQUESTS.first : ALL_REQUESTS.sum])
    statuses = {status: count for _, status, count in REQUEST_CELLS.counts(figures) if count}
    return of_route, figures[durations.sum], everything, statuses


def test_requests_answered_together_are_counted_when_their_batch_is_delivered() -> None:
    cells = memoryview(bytearray(8 * REQUEST_CELLS.end)).cast("Q")
    observer = Observer(REQUEST_CELLS, cells)
    seen: list[Finished] = []
    observer.log_from, observer.log = 0, seen.append
    series = REQUEST_CELLS.series("GET", "/get-value")
    began = monotonic_ns()
    DELIVERY.begin(Timing())
    earlier = began - 20 * SECOND
    for status, begun in [(200, began), (200, began), (404, began), (503, began), (503, earlier)]:
        assert observer.finished(series, status, begun)
        observer.log_last(series, status, 1, b"", None, None)
    DELIVERY.end()
    assert counted(cells) == (
        5,
        sum(each.nanoseconds for each in seen),
        5,
        {200: 2, 404: 1, 503: 2},
    )
    assert cells[ERRORS] == 2
    assert len({each.ended for each in seen[:2]}) == 1
    assert seen[-1].nanoseconds >= 20 * SECOND, "not that of the one before"
    # Nothing is left over for the next batch, nor for a request that no batch answers.
    DELIVERY.begin(Timing())
    DELIVERY.end()
    observer.finished(series, 200, began)
    assert counted(cells)[0] == 6


async def test_all_requests_of_a_turn_begin_together() -> None:
    observer = Observer(REQUEST_CELLS)
    before = monotonic_ns()
    assert observer.turn == 0
    began = observer.begin()
    assert before <= began == observer.turn
    await asyncio.sleep(0)
    assert observer.turn == 0
    assert observer.begin() > began


async def test_concurrent_requests_are_all_counted(tmp_path: Path) -> None:
    cells = memoryview(bytearray(8 * REQUEST_CELLS.end)).cast("Q")
    async with opened(tmp_path / "x.db") as cache:
        async with served(cache, observer=Observer(REQUEST_CELLS, cells)) as server:
            targets = [f"/get-value?key={number}" for number in range(20)]
            answers = await asyncio.gather(*(server.ask("GET", target) for target in targets))
    assert [answer.status for answer in answers] == [404] * 20
    assert (counted(cells)[0], counted(cells)[2:]) == (20, (20, {404: 20}))
