"""Both paths give the same answers, whatever clients put into header fields and keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import hdrs
from multidict import istr

from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.scope import DEFAULT
from tests.service import opened
from tests.web.both_paths import answers, both_paths
from tests.web.corpus import LAST
from tests.wire import request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NAMES = sorted({str(name) for name in vars(hdrs).values() if isinstance(name, istr)})
# Fields that change where a request or the connection ends.
FRAMING = {"Connection", "Content-Length", "Expect", "Host", "Transfer-Encoding"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[int, int]]:
    """Two servers on one database: with the fast path, and without."""
    async with opened(tmp_path_factory.mktemp("agree") / "x.db") as cache:
        await cache.write(
            Set(DEFAULT.key("plain"), b'{"a": 1.50}', JSON), Set(DEFAULT.key("w"), b"1", JSON)
        )
        async with both_paths(cache) as ports:
            yield ports


@pytest.mark.parametrize("value", ["x", '"1"', "*", "bytes=0-0", "", "a, b", "\xe9"])
async def test_every_header_field_means_the_same_to_both(
    ports: tuple[int, int], value: str
) -> None:
    """All fields that aiohttp knows. This fails if the general path starts to obey a
    field that the fast path considers harmless."""
    for name in [*NAMES, "Sec-Fetch-Site", "Proxy-Connection", "X-Request-ID", "traceparent"]:
        if name in FRAMING:
            continue
        fields = {name: value}
        for data in (
            request("GET", "/get-value?key=plain", headers=fields),
            request("GET", "/v1/values/plain", headers=fields),
            request("DELETE", "/v1/values/absent", headers=fields),
            request("POST", "/set-value", '{"key": "w", "value": 1}', fields),
            request("POST", "/get-values", '{"keys": ["plain", "absent"]}', fields),
            request("GET", "/get-values?limit=1&prefix=plain", headers=fields),
        ):
            fast, general = [await answers(port, [data + LAST]) for port in ports]
            assert fast == general != b"reset", data


@pytest.mark.parametrize("name", NAMES)
async def test_both_paths_agree_on_repeated_header_fields(
    ports: tuple[int, int], name: str
) -> None:
    if name in FRAMING:
        return
    data = request("GET", "/get-value?key=plain", headers=[(name, "x"), (name.lower(), "x")])
    fast, general = [await answers(port, [data + LAST]) for port in ports]
    assert fast == general != b"reset"


@pytest.mark.parametrize("target", ["/get-value?key=e%{:02x}", "/v1/values/%{:02X}e"])
async def test_every_escape_means_the_same_to_both(ports: tuple[int, int], target: str) -> None:
    for code in range(256):
        fast, general = [
            await answers(port, [request("GET", target.format(code)) + LAST]) for port in ports
        ]
        assert fast == general != b"reset", code


@pytest.mark.parametrize("body", [None, '{"key": "w", "value": 1}'])
async def test_request_behind_a_declined_upgrade_is_answered_by_both(
    ports: tuple[int, int], body: str | None
) -> None:
    fields = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQAAP__",
    }
    asked = request("POST" if body else "GET", "/set-value" if body else "/livez", body, fields)
    for port in ports:
        assert (await answers(port, [asked + asked + LAST])).count(b"HTTP/1.1 200") == 3


LAST_REQUESTS = {
    "plain": request("GET", "/get-value?key=plain", headers={"Connection": "close"}),
    "with-a-body": request(
        "POST", "/set-value", '{"key": "w", "value": 1}', {"Connection": "Close, TE"}
    ),
    "chunked": request(
        "PUT",
        "/v1/values/w",
        b"1\r\n2\r\n0\r\n\r\n",
        {"Transfer-Encoding": "chunked", "Connection": "close"},
    ),
    "http-1.0": b"GET /get-value?key=plain HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "http-1.0-with-a-body": (
        b"POST /set-value HTTP/1.0\r\nHost: localhost\r\nContent-Length: 24\r\n\r\n"
        b'{"key": "w", "value": 1}'
    ),
}


@pytest.mark.parametrize("rest", [b"\0rubbish", LAST, b"\r\n\r\n", b"x" * 100_000])
@pytest.mark.parametrize("last", LAST_REQUESTS.values(), ids=LAST_REQUESTS)
async def test_what_follows_the_last_request_is_ignored_by_both(
    ports: tuple[int, int], last: bytes, rest: bytes
) -> None:
    """RFC 9112, section 9.6."""
    for port in ports:
        received = await answers(port, [last + rest])
        assert received.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), received
        assert received.count(b"HTTP/1.") == 1
