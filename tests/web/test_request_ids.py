"""Request ids and traces, on both HTTP paths."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantbase.request_context import Trace
from tenantbase.web.app import REQUEST_CELLS
from tenantbase.web.fast_path.parser import Request, RequestParser
from tenantbase.web.observer import Finished, Observer
from tests.service import opened, served, web_settings
from tests.wire import Answer, request

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
MINE = {"X-Request-ID": "mine-1"}
BODY = '{"key": "k", "value": 1}'
TWICE = [("X-Request-ID", "a"), ("x-request-id", "b")]

# A request, its status, and the id in its answer; "new": a generated one.
ROWS = [
    (request("POST", "/set-value", BODY), 200, None),
    (request("POST", "/set-value", BODY, MINE), 200, "mine-1"),
    (request("GET", "/get-value?key=k", headers=TRACED), 200, None),
    (request("GET", "/get-value?key=k", headers={**MINE, **TRACED}), 200, "mine-1"),
    (request("GET", "/v1/values/k", headers=MINE), 200, "mine-1"),
    (request("GET", "/get-value?key=none"), 404, "new"),
    (request("GET", "/get-value?key=none", headers=MINE), 404, "mine-1"),
    (request("DELETE", "/v1/values/none", headers=MINE), 204, "mine-1"),
    (request("GET", "/health-check", headers=MINE), 200, "mine-1"),
    (request("GET", "/get-value?key=k", headers={"X-Request-ID": "a b"}), 200, "new"),
    (request("GET", "/get-value?key=k", headers={"X-Request-ID": "a" * 129}), 200, "new"),
    (request("GET", "/get-value?key=k", headers=TWICE), 200, "new"),
]
# As above, but never plain.
GENERAL_ROWS = [
    (request("GET", "/get-values", headers=MINE), 200, "mine-1"),
    (request("GET", "/get-value?key=k", headers={**MINE, "If-None-Match": "*"}), 304, "mine-1"),
    (request("GET", "/get-value?key=k", headers={**MINE, "If-Match": '"0"'}), 412, "mine-1"),
    (request("POST", "/set-value", "{", MINE), 400, "mine-1"),
    (request("GET", "/nothing"), 404, "new"),
    (request("PATCH", "/get-value", headers=MINE), 405, "mine-1"),
    (request("GET", "/livez", headers={"Host": "elsewhere.example"}), 421, "new"),
    (request("GET", "/livez", headers={"Expect": "x"}), 417, "new"),
    (b"this is not HTTP\r\n\r\n", 400, "new"),
]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
async def test_an_answer_has_the_id_if_the_client_sent_one_or_it_is_an_error(
    tmp_path: Path, fast: bool
) -> None:
    seen: list[Finished] = []
    observer = Observer(REQUEST_CELLS)
    observer.log_from, observer.log = 0, seen.append
    async with (
        opened(tmp_path / "x.db") as cache,
        served(cache, web_settings(fast_path=fast), observer=observer) as server,
    ):
        for number, (data, status, expected) in enumerate([*ROWS, *GENERAL_ROWS]):
            seen.clear()
            answer: Answer = await server.send(data)
            assert answer.status == status, data
            id = answer.headers.get("X-Request-ID")
            if expected == "new":
                assert id is not None and len(id) == 32, data
            else:
                assert id == expected, data
            while not seen:
                await asyncio.sleep(0)
            (finished,) = seen
            plain = fast and number < len(ROWS)
            assert isinstance(finished.request, bytes) == plain, "the id keeps no request off it"
            if id is not None:
                assert finished.context is not None and finished.context.id == id, "as in the log"
            if b"traceparent" in data:
                assert finished.context is not None
                assert finished.context.trace == Trace(TRACE_ID, PARENT_ID, 1)


async def test_ids_displace_nothing_that_clients_repeat(tmp_path: Path) -> None:
    """A block of header fields is examined once; those with ids would all be different."""
    judged = 0

    def judge(headers: object) -> str:
        nonlocal judged
        judged += 1
        return "fine"

    parser = RequestParser(judge)
    for number in range(2_000):
        fields = {"X-Request-ID": f"{number}"}
        parsed = parser.parse(request("GET", "/get-value?key=k", headers=fields))
        assert isinstance(parsed, Request) and parsed.context is not None
        assert parsed.context.id == f"{number}"
    assert judged == 1
    assert not parser._blocks and len(parser._fields) <= 3
