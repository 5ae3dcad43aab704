"""The guard: which requests are refused before any handler runs."""

from __future__ import annotations

import pytest

from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.web.table import Ask, Row, name_of, problem, put
from tests.wire import request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

OPEN = "https://app.example.com"

HOSTS = [
    ("localhost", True),
    ("LOCALHOST:80", True),
    ("localhost.", True),
    ("localhost:", True),
    ("127.0.0.1:8000", True),
    ("127.1.2.3", True),
    ("[::1]:8000", True),
    ("[::1]", True),
    ("example.com", False),
    ("localhost.example.com", False),
    ("a.localhost", False),
    ("127.0.0.1.example.com", False),
    ("0.0.0.0", False),
    ("192.168.0.1:8000", False),
    ("[::2]", False),
    ("localhost:80:80", False),
    ("evil@localhost", False),
    ("localhost, example.com", False),
    ("", False),
]

WRITES = [
    ("its own origin", {"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ("behind a proxy with TLS", {"Host": "localhost", "Origin": "https://localhost"}, 200),
    ("whatever the case", {"Host": "LocalHost", "Origin": "http://LOCALHOST"}, 200),
    ("with its own port", {"Host": "localhost:443", "Origin": "https://localhost"}, 200),
    ("with a port of its own", {"Host": "localhost:80", "Origin": "http://localhost"}, 200),
    ("with another's own port", {"Host": "localhost:80", "Origin": "https://localhost"}, 403),
    ("another port", {"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
    ("another host", {"Origin": "http://example.com"}, 403),
    ("a name of the same address", {"Host": "localhost", "Origin": "http://127.0.0.1"}, 403),
    ("an opaque origin", {"Origin": "null"}, 403),
    ("an empty origin", {"Origin": ""}, 403),
    ("from another site", {"Sec-Fetch-Site": "cross-site"}, 403),
    (
        "from another site, whatever the origin",
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        403,
    ),
    ("from the same origin", {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
    ("typed by the user", {"Sec-Fetch-Site": "none"}, 200),
]

METHODS = [
    ("POST", "/set-value", '{"key":"m","value":1}'),
    ("POST", "/get-values", '{"keys":[]}'),
    ("POST", "/set-values", '{"values":[]}'),
    ("POST", "/delete-values", '{"keys":[]}'),
    ("POST", "/increment-value", '{"key":"n"}'),
    ("DELETE", "/delete-value?key=m", None),
    ("PUT", "/v1/values/m", "1"),
    ("DELETE", "/v1/values/m", None),
    ("PATCH", "/no-such-route", "1"),
]

CODINGS = [
    Row(
        "compressed",
        Ask("POST", "/set-value", b"\x1f\x8b", {"Content-Encoding": "gzip"}),
        415,
        problem("unsupported-content-encoding", 415),
        {"accept-encoding": "identity"},
    ),
    Row(
        "with an unknown coding",
        Ask("PUT", "/v1/values/e1", "x", {"Content-Encoding": "rot13"}),
        415,
        then=(Ask("GET", "/v1/values/e1"), 404, None),
    ),
    Row("as it is", Ask("PUT", "/v1/values/e2", "x", {"Content-Encoding": "Identity"}), 201),
    Row(
        "in a GET",
        Ask("GET", "/get-value", '{"key":"e"}', {"Content-Encoding": "deflate"}),
        415,
    ),
]


@pytest.mark.parametrize(("host", "accepted"), HOSTS)
async def test_host(server: Server, host: str, accepted: bool) -> None:
    answer = await server.ask("GET", "/livez", headers={"Host": host})
    if accepted:
        assert answer.status == 200
    else:
        assert answer.status == 421
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json == problem("misdirected-request", 421)


async def test_the_absolute_form_takes_precedence_over_host(server: Server) -> None:
    good = await server.ask("GET", "http://127.0.0.1:1/livez", headers={"Host": "localhost"})
    assert good.status == 200
    bad = await server.ask("GET", "http://example.com/livez", headers={"Host": "localhost"})
    assert bad.status == 421


async def test_http_1_0_may_leave_host_out(server: Server) -> None:
    assert (await server.send(request("GET", "/livez", version="1.0"))).status == 200
    evil = request("GET", "/livez", headers={"Host": "example.com"}, version="1.0")
    assert (await server.send(evil)).status == 421


@pytest.mark.parametrize("origin", ["", "null", "http://", "http://localhost"])
async def test_without_a_host_no_origin_is_its_own(server: Server, origin: str) -> None:
    write = request("DELETE", "/v1/values/x", headers={"Origin": origin}, version="1.0")
    assert (await server.send(write)).status == 403


async def test_names_given_by_option_are_accepted(start: Start) -> None:
    settings = web_settings(allowed_hosts=frozenset({"cache.internal", "10.0.0.1", "fd00::1"}))
    async with start(settings) as server:
        for host in ("cache.internal:80", "Cache.Internal", "10.0.0.1", "[fd00::1]:80"):
            assert (await server.ask("GET", "/livez", headers={"Host": host})).status == 200
        for host in ("internal", "x.cache.internal", "10.0.0.2", "[fd00::2]"):
            assert (await server.ask("GET", "/livez", headers={"Host": host})).status == 421


async def test_host_is_not_checked_on_other_addresses(start: Start) -> None:
    async with start(web_settings(loopback=False)) as server:
        assert (await server.ask("GET", "/livez", headers={"Host": "example.com"})).status == 200


async def test_host_is_checked_on_every_address_if_names_are_given(start: Start) -> None:
    """Otherwise a page whose name resolves to this address could write (DNS rebinding)."""
    settings = web_settings(loopback=False, allowed_hosts=frozenset({"cache.internal."}))
    async with start(settings) as server:
        for host in ("cache.internal:80", "cache.internal.", "localhost:8000", "127.0.0.1"):
            assert (await server.ask("GET", "/livez", headers={"Host": host})).status == 200
        for host in ("evil.example", "10.0.0.2", "internal", ""):
            for method, target, body in METHODS:
                answer = await server.ask(method, target, body, {"Host": host})
                assert answer.status == 421
        for target in ("http://evil.example/livez", "http://evil.example?/livez", "http://[/livez"):
            assert (await server.ask("GET", target)).status in (400, 421)
        plain = '{"key": "h", "value": 1}'
        assert (await server.ask("POST", "/set-value", plain, {"Host": "evil"})).status == 421
        assert (await server.ask("GET", "/get-value?key=h")).status == 404


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("kv.example:8000", "'kv.example:8000'"),
        ('a"\xff', "'a\"\\udcff'"),
        ("h" * 5000, f"'{'h' * 100}...'"),
    ],
)
async def test_a_refused_host_is_named_with_the_option(
    server: Server, host: str, seen: str
) -> None:
    """The error alone must tell operators behind a proxy what to change."""
    answer = await server.ask("GET", "/livez", headers={"Host": host})
    assert answer.status == 421
    assert answer.json["detail"].isascii() and len(answer.json["detail"]) < 300
    assert f"the host {seen} " in answer.json["detail"]
    assert "--allowed-host" in answer.json["detail"]


@pytest.mark.parametrize(
    ("origin", "seen"),
    [
        ("https://app.example", "'https://app.example'"),
        ("null", "'null'"),
        ("http://\xff", "'http://\\udcff'"),
        ("http://" + "o" * 5000, f"'http://{'o' * 93}...'"),
    ],
)
async def test_a_refused_origin_is_named_with_the_option(
    server: Server, origin: str, seen: str
) -> None:
    headers = {"Host": "localhost:1234", "Origin": origin}
    answer = await server.ask("DELETE", "/v1/values/x", headers=headers)
    assert answer.status == 403
    assert answer.json["detail"].isascii() and len(answer.json["detail"]) < 400
    assert f"a page of {seen}" in answer.json["detail"]
    assert "'localhost:1234'" in answer.json["detail"]
    assert "--cors-origin" in answer.json["detail"]
    fetched = {"Sec-Fetch-Site": "cross-site"}
    answer = await server.ask("DELETE", "/v1/values/x", headers=fetched)
    assert answer.status == 403 and "--cors-origin" in answer.json["detail"]


@pytest.mark.parametrize(
    ("headers", "status"), [case[1:] for case in WRITES], ids=[case[0] for case in WRITES]
)
async def test_origin_of_a_write(server: Server, headers: dict[str, str], status: int) -> None:
    before = await put("origin", "1").send(server, "")
    answer = await server.ask("POST", "/set-value", '{"key":"origin","value":2}', headers)
    assert answer.status == status
    assert not any(name.startswith("access-control") for name in answer.headers)
    now = await server.ask("GET", "/v1/values/origin")
    if status == 403:
        assert answer.json == problem("cross-origin-write", 403)
        assert now.headers["etag"] == before.headers["etag"]
    else:
        assert now.body == b"2"


@pytest.mark.parametrize(("method", "target", "body"), METHODS)
async def test_every_write_is_guarded(
    server: Server, method: str, target: str, body: str | None
) -> None:
    for headers in ({"Origin": "http://example.com"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await server.ask(method, target, body, headers)).status == 403
    assert (await server.ask(method, target, body)).status in (200, 201, 204, 404)


async def test_a_foreign_pages_read_is_answered_without_cors_headers(server: Server) -> None:
    headers = {"Origin": "http://example.com", "Sec-Fetch-Site": "cross-site"}
    answer = await server.ask("GET", "/livez", headers=headers)
    assert answer.status == 200
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "vary" not in answer.headers


CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "codings",
    [
        ["gzip, chunked"],
        ["gzip", "chunked"],
        ["GZIP,chunked"],
        ["identity, chunked"],
        ["x, gzip, chunked"],
        ["chunked, gzip"],
        ["chunked", "gzip"],
        ["chunked, chunked"],
        ["chunked", "chunked"],
        ["gzip"],
        ["chunked;q=1"],
        [", chunked"],
        ["\xff, chunked"],
    ],
)
async def test_a_transfer_coding_other_than_chunked(server: Server, codings: list[str]) -> None:
    headers = [("Transfer-Encoding", coding) for coding in codings]
    for method, target in (("PUT", "/v1/values/te"), ("POST", "/set-value"), ("GET", "/livez")):
        async with server.wire() as wire:
            await wire.send(request(method, target, CHUNKED, headers) + request("GET", "/livez"))
            answer = await wire.answer(method)
            assert answer.status in (400, 501), answer
            assert answer.headers["content-type"] == "application/problem+json"
            with pytest.raises((EOFError, ConnectionError)):  # nothing after it is trusted
                await wire.answer()
    assert (await server.ask("GET", "/v1/values/te")).status == 404


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
async def test_chunked(server: Server, coding: str) -> None:
    headers = {"Transfer-Encoding": coding}
    assert (await server.ask("PUT", "/v1/values/chunked", CHUNKED, headers)).status < 300
    assert (await server.ask("GET", "/v1/values/chunked")).body == b"abc"


@pytest.mark.parametrize("row", CODINGS, ids=name_of)
async def test_content_encoding(server: Server, row: Row) -> None:
    await row.check(server)


async def test_no_preflight_without_an_option(server: Server) -> None:
    headers = {"Origin": OPEN, "Access-Control-Request-Method": "POST"}
    answer = await server.ask("OPTIONS", "/set-value", headers=headers)
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_an_origin_named_by_option_may_read_and_write(start: Start) -> None:
    async with start(web_settings(cors_origins=frozenset({OPEN}))) as server:
        preflight = await server.ask(
            "OPTIONS",
            "/v1/values/a",
            headers={
                "Origin": OPEN,
                "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "content-type,if-match",
            },
        )
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == OPEN
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        assert "If-Match" in preflight.headers["access-control-allow-headers"]
        assert preflight.headers["vary"] == "Origin"

        write = {"Origin": OPEN, "Sec-Fetch-Site": "cross-site"}
        answer = await server.ask("PUT", "/v1/values/a", "x", write)
        assert answer.status == 201
        read = await server.ask("GET", "/v1/values?prefix=a", headers={"Origin": OPEN})
        missing = await server.ask("GET", "/v1/values/b", headers={"Origin": OPEN})
        assert (read.status, missing.status) == (200, 404)
        for each in (answer, read, missing):
            assert each.headers["access-control-allow-origin"] == OPEN
            assert "ETag" in each.headers["access-control-expose-headers"]
            assert "Origin" in each.headers["vary"]
            assert "access-control-allow-credentials" not in each.headers

        for origin in ("https://example.com", "http://app.example.com", f"{OPEN}:444", "null"):
            refused = await server.ask("PUT", "/v1/values/a", "y", {"Origin": origin})
            assert refused.status == 403
            shown = await server.ask("GET", "/v1/values/a", headers={"Origin": origin})
            asked = await server.ask(
                "OPTIONS",
                "/v1/values/a",
                headers={"Origin": origin, "Access-Control-Request-Method": "PUT"},
            )
            assert asked.status == 405 and shown.body == b"x"
            for each in (refused, shown, asked):
                assert "access-control-allow-origin" not in each.headers
                assert "Origin" in each.headers["vary"]


async def test_any_port_of_a_host(start: Start) -> None:
    async with start(web_settings(cors_origins=frozenset({"http://localhost:*"}))) as server:
        for origin, accepted in [
            ("http://localhost", True),
            ("http://localhost:3000", True),
            ("http://LOCALHOST:5173", True),
            ("https://localhost:3000", False),
            ("http://localhost.example:3000", False),
            ("http://a.localhost:3000", False),
            ("http://localhost:3000:3000", False),
            ("http://localhost:", False),
            ("http://localhost:x", False),
            ("http://localhost:*", False),
            ("http://127.0.0.1:3000", False),
        ]:
            answer = await server.ask("PUT", "/v1/values/a", "x", {"Origin": origin})
            shown = answer.headers.get("access-control-allow-origin")
            assert (answer.status < 300, shown) == (accepted, origin if accepted else None)


@pytest.mark.parametrize("target", ["/", "*"])
async def test_options_of_the_whole_server_is_a_health_check(start: Start, target: str) -> None:
    async with start() as server:
        haproxy = request("OPTIONS", target, version="1.0").replace(b"Host: localhost\r\n", b"")
        for data in (haproxy, request("OPTIONS", target)):
            answer = await server.send(data, "OPTIONS")
            assert (answer.status, answer.body) == (204, b"")
            allowed = (
                "GET, HEAD, OPTIONS" if target == "/" else "DELETE, GET, HEAD, OPTIONS, POST, PUT"
            )
            assert answer.headers["allow"] == allowed
        evil = await server.ask("OPTIONS", target, headers={"Host": "evil.example"})
        assert evil.status == 421
        async with server.wire() as wire:
            server.lifecycle.drain()
            await wire.send(haproxy)
            assert (await wire.answer("OPTIONS")).status == 503


async def test_a_preflight_for_another_host_is_misdirected(start: Start) -> None:
    async with start(web_settings(cors_origins=frozenset({OPEN}))) as server:
        headers = {"Host": "evil", "Origin": OPEN, "Access-Control-Request-Method": "PUT"}
        assert (await server.ask("OPTIONS", "/v1/values/a", headers=headers)).status == 421
