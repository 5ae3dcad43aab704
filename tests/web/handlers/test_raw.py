"""Raw values: ``/v1/values/{key}``."""

from __future__ import annotations

import pytest

from tests.service import Server
from tests.web.matchers import MOMENT, VERSION
from tests.web.table import Ask, Row, invalid, name_of, problem, put, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

JSON = {"Content-Type": "application/json"}


def text(key: str, body: str = "0123456789", **headers: str) -> Ask:
    return Ask("PUT", f"/v1/values/{key}", body, {"Content-Type": "text/plain", **headers})


PUT = [
    Row(
        "creates",
        Ask("PUT", "/v1/values/p1", b"\0\xff"),
        201,
        written("p1"),
        {
            "content-type": "application/json",
            "cache-control": "no-cache",
            "location": "./p1",
            "x-cache": None,
        },
        then=(Ask("GET", "/v1/values/p1"), 200, b"\0\xff"),
    ),
    Row(
        "replaces",
        text("p2"),
        200,
        written("p2", created=False),
        {"location": None},
        given=[put("p2")],
    ),
    Row("ttl", Ask("PUT", "/v1/values/p3?ttl=0.5", ""), 201, written("p3", expires_at=MOMENT)),
    Row(
        "expires_at",
        Ask("PUT", "/v1/values/p4?expires_at=4000000000", ""),
        201,
        written("p4", expires_at=4_000_000_000),
    ),
    Row("both", Ask("PUT", "/v1/values/p?ttl=1&expires_at=4e9", ""), 400, invalid("expires_at")),
    Row("ttl 0", Ask("PUT", "/v1/values/p?ttl=0", ""), 400, invalid("ttl")),
    Row("ttl negative", Ask("PUT", "/v1/values/p?ttl=-1", ""), 400, invalid("ttl")),
    Row("ttl inf", Ask("PUT", "/v1/values/p?ttl=inf", ""), 400, invalid("ttl")),
    Row("ttl nan", Ask("PUT", "/v1/values/p?ttl=nan", ""), 400, invalid("ttl")),
    Row("ttl empty", Ask("PUT", "/v1/values/p?ttl=", ""), 400, invalid("ttl")),
    Row("unknown parameter", Ask("PUT", "/v1/values/p?tll=1", ""), 400, invalid("tll")),
    Row("broken JSON", Ask("PUT", "/v1/values/p", "{", JSON), 400, invalid("value")),
    Row("no JSON", Ask("PUT", "/v1/values/p", "", JSON), 400, invalid("value")),
    Row("JSON not in UTF-8", Ask("PUT", "/v1/values/p", b'"\xe9"', JSON), 400, invalid("value")),
    Row(
        "broken JSON of another type",
        Ask("PUT", "/v1/values/p", "{", {"Content-Type": "Application/Geo+JSON; x=y"}),
        400,
        invalid("value"),
    ),
    Row(
        "no media type",
        Ask("PUT", "/v1/values/p", "", {"Content-Type": "text"}),
        400,
        invalid("Content-Type"),
    ),
    Row(
        "media type too long",
        Ask("PUT", "/v1/values/p", "", {"Content-Type": "text/" + "x" * 251}),
        400,
        invalid("Content-Type"),
    ),
    Row(
        "a part of a value",
        text("p5", **{"Content-Range": "bytes 0-9/20"}),
        400,
        invalid("Content-Range"),
    ),
    Row(
        "a body of the largest size",
        Ask("PUT", "/v1/values/p6", b"x" * (1 << 20)),
        201,
    ),
    Row(
        "a body too large",
        Ask("PUT", "/v1/values/p7", b"x" * ((1 << 20) + 1)),
        413,
        problem("too-large", 413),
    ),
    Row(
        "If-None-Match: * and there",
        text("p8", **{"If-None-Match": "*"}),
        412,
        problem("condition-failed", 412, key="p8", version=VERSION),
        given=[put("p8")],
        then=(Ask("GET", "/v1/values/p8"), 200, b'"old"'),
    ),
    Row("If-None-Match: * and absent", text("p9", **{"If-None-Match": "*"}), 201),
    Row("If-Match", text("p10", **{"If-Match": '"$V"'}), 200, given=[put("p10")]),
    Row("If-Match, weak", text("p11", **{"If-Match": 'W/"$V"'}), 412, given=[put("p11")]),
    Row("If-Match and absent", text("p12", **{"If-Match": '"1"'}), 412),
    Row("If-Match malformed", text("p", **{"If-Match": '"1'}), 400, invalid("If-Match")),
    Row("compressed", text("p", **{"Content-Encoding": "gzip"}), 415),
]

KEYS = [
    ("a/b", "a/b"),
    ("a%2Fb%2fc", "a/b/c"),
    ("//a///", "//a///"),
    (".", "."),
    ("../../livez", "../../livez"),
    ("a/../b", "a/../b"),
    ("%2e%2e/b", "../b"),
    ("%252F", "%2F"),
    ("a+b", "a+b"),
    ("a%20b", "a b"),
    ("a%3Fb%23c", "a?b#c"),
    ("%0A%0D%09", "\n\r\t"),
    ("%F0%9F%8D%87", "🍇"),
    ("{key}:*'()", "{key}:*'()"),
    ("x" * 1024, "x" * 1024),
    ("%C3%A9" * 512, "é" * 512),
]

GET = [
    Row(
        "bytes and type come back",
        Ask("GET", "/v1/values/g1"),
        200,
        b"0123456789",
        {
            "content-type": "text/plain",
            "content-length": "10",
            "etag": '"$V"',
            "x-cache": "HIT",
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
            "accept-ranges": "bytes",
            "content-disposition": None,
            "content-encoding": None,
            "server": "tenantbase",
        },
        [text("g1")],
    ),
    Row(
        "without a type",
        Ask("GET", "/v1/values/g2"),
        200,
        b"x",
        {"content-type": "application/octet-stream"},
        [Ask("PUT", "/v1/values/g2", "x")],
    ),
    Row(
        "a type with parameters, as it was written",
        Ask("GET", "/v1/values/g3"),
        200,
        b"x",
        {"content-type": 'Text/Plain ; Charset="a;b"'},
        [Ask("PUT", "/v1/values/g3", "x", {"Content-Type": 'Text/Plain ; Charset="a;b"'})],
    ),
    Row(
        "nothing",
        Ask("GET", "/v1/values/g4"),
        200,
        b"",
        {"content-length": "0", "content-type": "image/png"},
        [Ask("PUT", "/v1/values/g4", "", {"Content-Type": "image/png"})],
    ),
    Row(
        "JSON keeps its white space",
        Ask("GET", "/v1/values/g5"),
        200,
        b' {"a": 1.0}\n',
        {"content-type": "application/json"},
        [put("g5", ' {"a": 1.0}\n')],
    ),
    Row(
        "what set-value stored",
        Ask("GET", "/v1/values/g6"),
        200,
        b'{"a": 1.0}',
        {"content-type": "application/json", "x-content-type-options": "nosniff"},
        [Ask("POST", "/set-value", '{"key":"g6","value": {"a": 1.0} }')],
    ),
    Row(
        "HEAD",
        Ask("HEAD", "/v1/values/g7"),
        200,
        b"",
        {"content-length": "10", "etag": '"$V"', "content-type": "text/plain"},
        [text("g7")],
    ),
    Row(
        "absent",
        Ask("GET", "/v1/values/absent"),
        404,
        problem("no-such-key", 404),
        {"x-cache": "MISS", "cache-control": "no-cache"},
    ),
    Row("a parameter", Ask("GET", "/v1/values/g?ttl=1"), 400, invalid("ttl")),
    Row("no key", Ask("GET", "/v1/values/"), 400, invalid("key")),
    Row("%00", Ask("GET", "/v1/values/a%00b"), 400, invalid("key")),
    Row("invalid UTF-8", Ask("GET", "/v1/values/%ff"), 400, invalid("key")),
    Row("a surrogate", Ask("GET", "/v1/values/%ED%A0%80"), 400, invalid("key")),
    Row("half an escape", Ask("GET", "/v1/values/100%"), 400, invalid("key")),
    Row("key too long", Ask("GET", "/v1/values/" + "x" * 1025), 400, invalid("key")),
    Row("a path that only decodes to one", Ask("GET", "/v1/value%73/g"), 404),
    Row(
        "the absolute form",
        Ask("GET", "http://localhost/v1/values/g8/http://x"),
        200,
        b'"old"',
        given=[put("g8/http://x")],
    ),
    Row(
        "If-None-Match",
        Ask("GET", "/v1/values/g9", headers={"If-None-Match": '"$V"'}),
        304,
        b"",
        {"etag": '"$V"', "x-cache": "HIT", "cache-control": "no-cache", "content-length": None},
        [text("g9")],
    ),
    Row(
        "If-Match",
        Ask("GET", "/v1/values/g10", headers={"If-Match": '"1"'}),
        412,
        given=[text("g10")],
    ),
    Row(
        "If-None-Match goes before Range",
        Ask("GET", "/v1/values/g11", headers={"If-None-Match": '"$V"', "Range": "bytes=0-1"}),
        304,
        given=[text("g11")],
    ),
]


def part(value: str) -> dict[str, str]:
    return {"Range": value}


RANGES = [
    ("first bytes", part("bytes=0-3"), 206, b"0123", "bytes 0-3/10"),
    ("from the middle", part("bytes=7-"), 206, b"789", "bytes 7-9/10"),
    ("last bytes", part("bytes=-3"), 206, b"789", "bytes 7-9/10"),
    ("more last bytes than there are", part("bytes=-99"), 206, b"0123456789", "bytes 0-9/10"),
    ("to beyond the end", part("bytes=8-99"), 206, b"89", "bytes 8-9/10"),
    ("one byte", part("Bytes=9-9"), 206, b"9", "bytes 9-9/10"),
    ("beyond the end", part("bytes=10-"), 416, None, "bytes */10"),
    ("no last bytes", part("bytes=-0"), 416, None, "bytes */10"),
    ("several", part("bytes=0-1,3-4"), 200, b"0123456789", None),
    ("backwards", part("bytes=3-2"), 200, b"0123456789", None),
    ("other units", part("lines=0-1"), 200, b"0123456789", None),
    ("malformed", part("bytes=a-b"), 200, b"0123456789", None),
    ("empty", part("bytes=-"), 200, b"0123456789", None),
    ("If-Range holds", {**part("bytes=0-3"), "If-Range": '"$V"'}, 206, b"0123", "bytes 0-3/10"),
    ("If-Range, another", {**part("bytes=0-3"), "If-Range": '"1"'}, 200, b"0123456789", None),
    ("If-Range, weak", {**part("bytes=0-3"), "If-Range": 'W/"$V"'}, 200, b"0123456789", None),
    (
        "If-Range, a date",
        {**part("bytes=0-3"), "If-Range": "Sat, 01 Jan 2050 00:00:00 GMT"},
        200,
        b"0123456789",
        None,
    ),
    ("If-Range beyond the end", {**part("bytes=99-"), "If-Range": '"1"'}, 200, None, None),
]

ACTIVE = [
    ("text/html", True),
    ("Text/HTML; charset=utf-8", True),
    ("application/xhtml+xml", True),
    ("image/svg+xml", True),
    ("text/xml", True),
    ("application/xml", True),
    ("application/atom+xml", True),
    ("text/javascript", True),
    ("application/x-javascript", True),
    ("application/ecmascript", True),
    ("text/vbscript", True),
    ("text/plain", False),
    ("text/css", False),
    ("image/png", False),
    ("application/pdf", False),
    ("application/json", False),
]

DELETE = [
    Row(
        "there",
        Ask("DELETE", "/v1/values/d1"),
        204,
        b"",
        {"cache-control": "no-cache"},
        [put("d1")],
        then=(Ask("GET", "/v1/values/d1"), 404, None),
    ),
    Row("absent", Ask("DELETE", "/v1/values/d2"), 204, b""),
    Row(
        "If-Match",
        Ask("DELETE", "/v1/values/d3", headers={"If-Match": '"1"'}),
        412,
        given=[put("d3")],
        then=(Ask("GET", "/v1/values/d3"), 200, b'"old"'),
    ),
    Row("If-Match: * and absent", Ask("DELETE", "/v1/values/d4", headers={"If-Match": "*"}), 412),
    Row("a parameter", Ask("DELETE", "/v1/values/d?ttl=1"), 400, invalid("ttl")),
    Row("no key", Ask("DELETE", "/v1/values/"), 400, invalid("key")),
    Row(
        "a fragment does not shorten the key",
        Ask("DELETE", "/v1/values/d5#x"),
        400,
        invalid(),
        given=[put("d5")],
        then=(Ask("GET", "/v1/values/d5"), 200, None),
    ),
]


@pytest.mark.parametrize("row", PUT, ids=name_of)
async def test_put(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", GET, ids=name_of)
async def test_get(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", DELETE, ids=name_of)
async def test_delete(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize(("path", "key"), KEYS)
async def test_the_key_is_the_rest_of_the_path_decoded_once(
    server: Server, path: str, key: str
) -> None:
    target = f"/v1/values/{path}"
    answer = await server.ask("PUT", target, "x")
    assert answer.status == 201 and answer.json["key"] == key
    assert (await server.ask("GET", target)).body == b"x"
    shown = await server.ask("POST", "/get-values", '{"keys":["no"]}')
    assert shown.json["missing"] == ["no"]
    assert (await server.cache.get(server.scope.key(key))).entry is not None
    assert (await server.ask("DELETE", target)).status == 204
    assert (await server.cache.get(server.scope.key(key))).entry is None


@pytest.mark.parametrize(
    ("headers", "status", "body", "content_range"),
    [case[1:] for case in RANGES],
    ids=[case[0] for case in RANGES],
)
async def test_range(
    server: Server,
    headers: dict[str, str],
    status: int,
    body: bytes | None,
    content_range: str | None,
) -> None:
    version = (await text("ranged").send(server, "0")).version
    ask = Ask("GET", "/v1/values/ranged", headers=headers)
    answer = await ask.send(server, version)
    assert answer.status == status
    assert answer.headers.get("content-range") == content_range
    if body is not None:
        assert answer.body == body
        assert answer.headers["etag"] == f'"{version}"'
        assert answer.headers["content-type"] == "text/plain"
    if status == 416:
        assert answer.json == problem("range-not-satisfiable", 416)
    whole = await Ask("HEAD", "/v1/values/ranged", headers=headers).send(server, version)
    assert (whole.status, whole.headers["content-length"]) == (200, "10"), "for GET only"


async def test_no_range_of_an_empty_value_exists(server: Server) -> None:
    await server.ask("PUT", "/v1/values/empty", "")
    answer = await server.ask("GET", "/v1/values/empty", headers=part("bytes=0-"))
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize(("content_type", "attachment"), ACTIVE)
async def test_active_content_is_an_attachment(
    server: Server, content_type: str, attachment: bool
) -> None:
    body = "{}" if "json" in content_type else "<script>"
    await server.ask("PUT", "/v1/values/active", body, {"Content-Type": content_type})
    answer = await server.ask("GET", "/v1/values/active")
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get("content-disposition") == ("attachment" if attachment else None)
