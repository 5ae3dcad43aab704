"""Errors as answers: always a problem document, which reveals nothing internal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Applied, Command
from tenantbase.errors import (
    CannotOpen,
    ConditionFailed,
    OutcomeUnknown,
    Overloaded,
    StoreFull,
    StoreUnavailable,
    TenantbaseError,
    WrongType,
)
from tenantbase.listing import Item, KeyRange
from tenantbase.lookup import Lookup
from tenantbase.plain_entries import Render
from tests.service import Server
from tests.web.conftest import Start
from tests.web.matchers import VERSION
from tests.web.table import Ask, Row, name_of, problem

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


ROUTES = [
    Row("no such route", Ask("GET", "/nothing"), 404, problem("no-such-route", 404)),
    Row(
        "the root",
        Ask("POST", "/", "x"),
        405,
        problem("method-not-allowed", 405),
        {"allow": "GET, HEAD"},
    ),
    Row("options of nothing", Ask("OPTIONS", "/x"), 404, problem("no-such-route", 404)),
    Row("a slash too many", Ask("GET", "/get-value/?key=a"), 404, problem("no-such-route", 404)),
    Row("another case", Ask("GET", "/Get-Value?key=a"), 404, problem("no-such-route", 404)),
    *(
        Row(
            f"{method} {path}",
            Ask(method, path),
            405,
            problem("method-not-allowed", 405),
            {"allow": allow},
        )
        for method, path, allow in [
            ("GET", "/set-value", "POST"),
            ("POST", "/get-value", "GET, HEAD"),
            ("GET", "/delete-value", "DELETE"),
            ("PUT", "/get-values", "GET, HEAD, POST"),
            ("DELETE", "/health-check", "GET, HEAD"),
            ("GET", "/set-values", "POST"),
            ("GET", "/delete-values", "POST"),
            ("GET", "/increment-value", "POST"),
            ("POST", "/v1/values/a/b", "DELETE, GET, HEAD, PUT"),
            ("PATCH", "/v1/values/a", "DELETE, GET, HEAD, PUT"),
            ("POST", "/v1/values", "GET, HEAD"),
            ("OPTIONS", "/livez", "GET, HEAD"),
            ("PROPFIND", "/livez", "GET, HEAD"),
        ]
    ),
    Row(
        "an unknown expectation",
        Ask("GET", "/livez", headers={"Expect": "x"}),
        417,
        problem("expectation-failed", 417),
    ),
    Row(
        "an unknown expectation where there is nothing",
        Ask("GET", "/nothing", headers={"Expect": "x"}),
        417,
        problem("expectation-failed", 417),
    ),
]


@pytest.mark.parametrize("target", ["/livez", "/nothing", "/v1/values/a", "/set-value"])
@pytest.mark.parametrize("expect", ["\xff", "100-continue\xff", "x" * 5000, "\udcff", '"'])
async def test_an_expectation_of_odd_bytes(
    server: Server, target: str, expect: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = b"GET %b HTTP/1.1\r\nHost: localhost\r\nExpect: %b\r\n\r\n"
    raw = expect.encode("latin-1" if expect.isprintable() else "utf-8", "surrogateescape")
    answer = await server.send(data % (target.encode(), raw))
    assert answer.status == 417
    assert answer.json == problem("expectation-failed", 417)
    assert [each for each in caplog.records if each.name == "tenantbase.web"] == []


ODD = [b"\xff", b"\xc3\xa9", b"\xed\xa0\xbd", b"\x80" * 100, b"\t", b"a\tb", b'"', b"\\", b"%00"]


@pytest.mark.parametrize(
    "header",
    [
        "Accept",
        "Accept-Encoding",
        "Authorization",
        "Content-Encoding",
        "Content-Range",
        "Content-Type",
        "Cookie",
        "Expect",
        "Host",
        "If-Match",
        "If-None-Match",
        "If-Range",
        "Origin",
        "Range",
        "Sec-Fetch-Site",
        "Transfer-Encoding",
        "X-Request-ID",
    ],
)
async def test_odd_bytes_in_a_header_are_never_an_internal_error(
    server: Server, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In headers that the server examines, and in some that it does not."""
    asks = [
        (b"GET", b"/get-value?key=odd", b""),
        (b"GET", b"/v1/values?prefix=odd", b""),
        (b"PUT", b"/v1/values/odd", b"x"),
        (b"DELETE", b"/v1/values/odd", b""),
        (b"OPTIONS", b"/", b""),
    ]
    for odd in ODD:
        for method, target, body in asks:
            fields = {b"Host": b"localhost", b"Content-Length": b"%d" % len(body)}
            if header == "Transfer-Encoding":
                del fields[b"Content-Length"]
            fields[header.encode()] = odd
            head = b"".join(b"%b: %b\r\n" % field for field in fields.items())
            answer = await server.send(
                b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, head, body), method.decode()
            )
            assert answer.status < 500 or answer.status == 501, (header, odd, answer)
    assert [each for each in caplog.records if each.name == "tenantbase.web"] == []


@pytest.mark.parametrize("row", ROUTES, ids=name_of)
async def test_routes(server: Server, row: Row) -> None:
    await row.check(server)
    answer = await row.ask.send(server, "")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["server"] == "tenantbase"


class _Raising(Cache):
    """A database in which every operation fails with the given error."""

    error: Exception

    def get(self, key: str, max_stale: float | None = None) -> asyncio.Future[Lookup]:
        return self._failed()

    def get_then(self, key: str, receive: Callable[[Lookup | Exception], None]) -> None:
        asyncio.get_running_loop().call_soon(receive, self.error)

    async def get_many(
        self, keys: Sequence[str], size: int = 0, max_stale: float | None = None
    ) -> list[Lookup]:
        raise self.error

    def write(self, *changes: Command) -> asyncio.Future[tuple[Applied, ...]]:
        return self._failed()

    def write_then(
        self, command: Command, receive: Callable[[tuple[Applied, ...] | Exception], None]
    ) -> None:
        asyncio.get_running_loop().call_soon(receive, self.error)

    def _failed(self) -> asyncio.Future[Any]:
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(self.error)
        return failed

    async def check(self) -> None:
        raise self.error

    async def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncGenerator[tuple[list[Item], bool], None]:
        raise self.error
        yield [], False


def raising(error: Exception) -> Callable[[Cache], Cache]:
    def wrap(cache: Cache) -> Cache:
        broken = object.__new__(_Raising)
        broken.__dict__.update(cache.__dict__)
        broken.error = error
        return broken

    return wrap


ERRORS: list[tuple[Exception, dict[str, object], str | None]] = [
    (WrongType("no integer"), problem("wrong-type", 409), None),
    (
        ConditionFailed("k", 7),
        problem("condition-failed", 412, key="k", version=VERSION),
        None,
    ),
    (ConditionFailed("k", None), problem("condition-failed", 412, key="k"), None),
    (Overloaded("too many"), problem("overloaded", 429), "1"),
    (StoreUnavailable("busy"), problem("store-unavailable", 503), "1"),
    (CannotOpen("too new"), problem("store-unavailable", 503), "1"),
    (OutcomeUnknown("may be"), problem("outcome-unknown", 503), "1"),
    (StoreFull("full"), problem("disk-full", 507), None),
    (ValueError("/secret/path SELECT"), problem("internal-error", 500), None),
    (TimeoutError("secret"), problem("internal-error", 500), None),
    (TenantbaseError("secret"), problem("internal-error", 500), None),
]


def is_an_error(record: logging.LogRecord) -> bool:
    """Whether a record is an error other than a trouble of the database, which may be late on a busy
    machine."""
    return record.levelno >= logging.ERROR and record.name != "tenantbase.troubles"


REQUESTS = [
    Ask("POST", "/set-value", '{"key":"k","value":1}'),
    Ask("GET", "/get-value?key=k"),
    Ask("DELETE", "/delete-value?key=k"),
    Ask("GET", "/get-values"),
    Ask("POST", "/get-values", '{"keys":["k"]}'),
    Ask("POST", "/set-values", '{"values":[{"key":"k","value":1}]}'),
    Ask("POST", "/delete-values", '{"prefix":""}'),
    Ask("POST", "/increment-value", '{"key":"k"}'),
    Ask("GET", "/v1/values/k"),
    Ask("PUT", "/v1/values/k", "x"),
    Ask("DELETE", "/v1/values/k"),
    Ask("GET", "/v1/values", headers={"Accept": "application/x-ndjson"}),
]


@pytest.mark.parametrize(
    ("error", "document", "retry_after"),
    ERRORS,
    ids=[f"{type(error).__name__} {error}" for error, _, _ in ERRORS],
)
async def test_errors(
    start: Start,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    document: dict[str, object],
    retry_after: str | None,
) -> None:
    async with start(wrap=raising(error)) as server:
        for ask in REQUESTS:
            answer = await ask.send(server, "")
            assert answer.status == document["status"]
            assert answer.json == document
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers.get("retry-after") == retry_after
            if document["status"] == 500:
                assert "secret" not in answer.body.decode() and "SELECT" not in answer.body.decode()
            else:
                assert answer.json["detail"] == str(error)
    logged = [each for each in caplog.records if is_an_error(each)]
    assert bool(logged) == (document["status"] == 500)


async def test_an_unexpected_error_is_logged_with_the_id_in_its_answer(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(wrap=raising(ValueError("a mistake of ours"))) as server:
        for ask in [*REQUESTS, Ask("GET", "/health-check")]:
            caplog.clear()
            answer = await ask.send(server, "")
            (logged,) = [each for each in caplog.records if is_an_error(each)]
            assert answer.status == 500
            assert vars(logged)["request"].id == answer.headers["x-request-id"], ask


async def test_an_unknown_outcome_does_not_claim_to_have_failed(start: Start) -> None:
    error = OutcomeUnknown("the write may or may not have been made")
    async with start(wrap=raising(error)) as server:
        answer = await server.ask("POST", "/set-value", '{"key":"k","value":1}')
        said = f'{answer.json["title"]} {answer.json["detail"]}'
        assert "unknown" in said and "may or may not" in said
        assert "failed" not in said and "not written" not in said
