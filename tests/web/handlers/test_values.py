"""The routes for one value."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service import Server
from tests.web.matchers import MOMENT, VERSION
from tests.web.table import Ask, Row, invalid, name_of, problem, put, shown, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def set_(key: str, **more: object) -> Ask:
    return Ask("POST", "/set-value", json.dumps({"key": key, "value": 1, **more}))


ONE_ENTRY = {
    "content-type": "application/json",
    "cache-control": "no-cache",
    "server": "tenantbase",
}

SET = [
    Row(
        "creates",
        Ask("POST", "/set-value", '{"key": "s1", "value": "test"}'),
        200,
        written("s1"),
        {**ONE_ENTRY, "x-cache": None, "x-content-type-options": None},
    ),
    Row("replaces", set_("s2"), 200, written("s2", created=False), given=[put("s2")]),
    Row(
        "takes a body whatever its type",
        Ask(
            "POST",
            "/set-value",
            '{"key": "s3", "value": 1}',
            {"Content-Type": "application/x-www-form-urlencoded"},
        ),
        200,
        written("s3"),
    ),
    Row("keeps a ttl", set_("s4", ttl=0.5), 200, written("s4", expires_at=MOMENT)),
    Row(
        "keeps an expiry",
        set_("s5", expires_at=4_000_000_000),
        200,
        written("s5", expires_at=4_000_000_000),
    ),
    Row("null is no ttl", set_("s6", ttl=None, expires_at=None), 200, written("s6")),
    Row("ttl and expires_at", set_("s", ttl=1, expires_at=4e9), 400, invalid("expires_at")),
    Row("ttl 0", set_("s", ttl=0), 400, invalid("ttl")),
    Row("ttl as text", set_("s", ttl="1"), 400, invalid("ttl")),
    Row("ttl true", set_("s", ttl=True), 400, invalid("ttl")),
    Row("ttl for ever", set_("s", ttl=1e300), 400, invalid("ttl")),
    Row("expiry in the past", set_("s", expires_at=1), 400, invalid("expires_at")),
    Row("if_absent and absent", set_("s7", if_absent=True), 200, written("s7")),
    Row(
        "if_absent and there",
        set_("s8", if_absent=True),
        412,
        problem("condition-failed", 412, key="s8", version=VERSION),
        given=[put("s8")],
        then=(Ask("GET", "/v1/values/s8"), 200, b'"old"'),
    ),
    Row("if_absent false is no condition", set_("s9", if_absent=False), 200, given=[put("s9")]),
    Row(
        "if_version holds",
        Ask("POST", "/set-value", '{"key": "s10", "value": 1, "if_version": $V}'),
        200,
        written("s10", created=False),
        given=[put("s10")],
    ),
    Row("if_version and another", set_("s11", if_version=1), 412, given=[put("s11")]),
    Row(
        "if_version and absent",
        set_("s12", if_version=1),
        412,
        problem("condition-failed", 412, key="s12"),
    ),
    Row("if_version no integer", set_("s", if_version=1.5), 400, invalid("if_version")),
    Row("base64", set_("s13", value="AP8=", encoding="base64"), 200, written("s13")),
    Row(
        "base64 with a type",
        set_("s14", value="AP8=", encoding="base64", content_type="image/png"),
        200,
        then=(
            Ask("GET", "/get-value?key=s14"),
            200,
            shown("s14", "AP8=", encoding="base64", content_type="image/png"),
        ),
    ),
    Row("base64 that is none", set_("s", value="?", encoding="base64"), 400, invalid("value")),
    Row("base64 of a number", set_("s", value=1, encoding="base64"), 400, invalid("value")),
    Row(
        "base64 of no media type",
        set_("s", value="AA==", encoding="base64", content_type="text"),
        400,
        invalid("content_type"),
    ),
    Row(
        "text",
        set_("s20", value='é"\n', encoding="utf-8"),
        200,
        then=(
            Ask("GET", "/v1/values/s20"),
            200,
            'é"\n'.encode(),
        ),
    ),
    Row(
        "text with a type",
        set_("s21", value="a,b", encoding="utf-8", content_type="text/csv"),
        200,
        then=(
            Ask("GET", "/get-value?key=s21"),
            200,
            shown("s21", "a,b", encoding="utf-8", content_type="text/csv"),
        ),
    ),
    Row(
        "JSON as text",
        set_("s22", value="[1.0]", encoding="utf-8", content_type="application/json"),
        200,
        then=(Ask("GET", "/get-value?key=s22"), 200, shown("s22", [1.0])),
    ),
    Row("text that is a number", set_("s", value=1, encoding="utf-8"), 400, invalid("value")),
    Row(
        "text with a lone surrogate",
        Ask("POST", "/set-value", '{"key":"s","value":"\\ud83d","encoding":"utf-8"}'),
        400,
    ),
    Row("another encoding", set_("s", value="x", encoding="hex"), 400, invalid("encoding")),
    Row(
        "base64 of JSON",
        set_("s15", value="WzEuMF0=", encoding="base64", content_type="application/json"),
        200,
        then=(Ask("GET", "/get-value?key=s15"), 200, shown("s15", [1.0])),
    ),
    Row(
        "base64 of JSON that is none",
        set_("s", value="e30=e", encoding="base64", content_type="application/json"),
        400,
        invalid("value"),
    ),
    Row(
        "base64 of broken JSON",
        set_("s", value="e30xMg==", encoding="base64", content_type="application/json"),
        400,
        invalid("value"),
    ),
    Row("type without encoding", set_("s", content_type="text/plain"), 400, invalid("encoding")),
    Row("no media type", set_("s", content_type="text\r\nX: y"), 400, invalid("content_type")),
    Row("half a parameter", set_("s", content_type="a/b; x="), 400, invalid("content_type")),
    Row("half a quotation", set_("s", content_type='a/b; x="y'), 400, invalid("content_type")),
    Row(
        "another type of JSON",
        set_("s16", content_type="application/geo+json"),
        200,
        then=(
            Ask("GET", "/get-value?key=s16"),
            200,
            shown("s16", 1, content_type="application/geo+json"),
        ),
    ),
    Row("unknown field", set_("s", tll=1), 400, invalid("tll")),
    Row("no key", Ask("POST", "/set-value", '{"value": 1}'), 400, invalid("key")),
    Row("no value", Ask("POST", "/set-value", '{"key": "s"}'), 400, invalid("value")),
    Row("empty key", set_(""), 400, invalid("key")),
    Row("key too long", set_("é" * 513), 400, invalid("key")),
    Row("longest key", set_("é" * 512), 200),
    Row("key with U+0000", set_("a\0b"), 400, invalid("key")),
    Row("key a number", Ask("POST", "/set-value", '{"key": 1, "value": 1}'), 400, invalid("key")),
    Row(
        "key with a lone surrogate",
        Ask("POST", "/set-value", r'{"key": "\ud800", "value": 1}'),
        400,
        invalid(),
    ),
    Row("no body", Ask("POST", "/set-value"), 400, invalid()),
    Row("no object", Ask("POST", "/set-value", "[]"), 400, invalid()),
    Row("no JSON", Ask("POST", "/set-value", "key=s&value=1"), 400, invalid()),
    Row("two documents", Ask("POST", "/set-value", '{"key":"s","value":1}{}'), 400, invalid()),
    Row("NaN", Ask("POST", "/set-value", '{"key":"s","value":NaN}'), 400, invalid()),
    Row("a leading zero", Ask("POST", "/set-value", '{"key":"s","value":01}'), 400, invalid()),
    Row("half an escape", Ask("POST", "/set-value", r'{"key":"s","value":"\u12"}'), 400, invalid()),
    Row("a value cut off", Ask("POST", "/set-value", '{"key":"s","value":"a'), 400, invalid()),
    Row(
        "invalid UTF-8 in a value",
        Ask("POST", "/set-value", b'{"key":"s","value":"\xff"}'),
        400,
        invalid(),
    ),
    Row(
        "invalid UTF-8 in a key",
        Ask("POST", "/set-value", b'{"key":"\xff","value":1}'),
        400,
        invalid(),
    ),
    Row(
        "nested without end",
        Ask("POST", "/set-value", '{"key":"s","value":' + "[" * 100_000),
        400,
        invalid(),
    ),
    Row("a query parameter", Ask("POST", "/set-value?ttl=1", "{}"), 400, invalid("ttl")),
    Row(
        "value too large",
        set_("s", value="x" * (1 << 20)),
        413,
        problem("too-large", 413, field="value"),
    ),
    Row(
        "largest value",
        set_("s17", value="x" * ((1 << 20) - 2)),
        200,
        then=(Ask("HEAD", "/get-value?key=s17"), 200, None),
    ),
]

GET = [
    Row(
        "from the cache",
        Ask("GET", "/get-value?key=g1"),
        200,
        shown("g1", "old"),
        {**ONE_ENTRY, "etag": '"$V"', "x-cache": "HIT"},
        [put("g1")],
    ),
    Row(
        "key in the body",
        Ask("GET", "/get-value", '{"key": "g2"}'),
        200,
        shown("g2", "old"),
        given=[put("g2")],
    ),
    Row(
        "key in both",
        Ask("GET", "/get-value?key=g3", '{"key": "g3"}'),
        200,
        shown("g3", "old"),
        given=[put("g3")],
    ),
    Row(
        "key in both, different",
        Ask("GET", "/get-value?key=g3", '{"key": "g4"}'),
        400,
        invalid("key"),
    ),
    Row(
        "an empty object beside the query",
        Ask("GET", "/get-value?key=g5", "{}"),
        200,
        given=[put("g5")],
    ),
    Row(
        "a body that is no JSON",
        Ask("GET", "/get-value?key=g5", "x"),
        400,
        invalid(),
    ),
    Row("unknown field in the body", Ask("GET", "/get-value", '{"kex":1}'), 400, invalid("kex")),
    Row("no key", Ask("GET", "/get-value"), 400, invalid("key")),
    Row("empty key", Ask("GET", "/get-value?key="), 400, invalid("key")),
    Row("key twice", Ask("GET", "/get-value?key=a&key=a"), 400, invalid("key")),
    Row("unknown parameter", Ask("GET", "/get-value?key=a&k=b"), 400, invalid("k")),
    Row("key with %00", Ask("GET", "/get-value?key=a%00"), 400, invalid("key")),
    Row("invalid UTF-8", Ask("GET", "/get-value?key=%ff"), 400, invalid("key")),
    Row("half an escape", Ask("GET", "/get-value?key=100%"), 400, invalid("key")),
    Row("a fragment", Ask("GET", "/get-value?key=a#b"), 400, invalid()),
    Row(
        "decoded once, with plus for a space",
        Ask("GET", "/get-value?key=a+b%2Bc%2520%26%3D%23"),
        200,
        shown("a b+c%20&=#", "old"),
        given=[put("a%20b+c%2520&=%23")],
    ),
    Row(
        "any Unicode",
        Ask("GET", "/get-value?key=%C3%BC%F0%9F%8D%87%0A"),
        200,
        shown("ü🍇\n", "old"),
        given=[put("%C3%BC%F0%9F%8D%87%0A")],
    ),
    Row(
        "UTF-8 that was not percent-encoded",
        Ask("GET", "/get-value?key=ö"),
        400,
        invalid(),
    ),
    Row(
        "absent",
        Ask("GET", "/get-value?key=absent"),
        404,
        problem("no-such-key", 404),
        {
            "content-type": "application/problem+json",
            "cache-control": "no-cache",
            "x-cache": "MISS",
            "etag": None,
        },
    ),
    Row(
        "deleted",
        Ask("GET", "/get-value?key=g6"),
        404,
        problem("no-such-key", 404),
        {"x-cache": "HIT"},
        [put("g6"), Ask("DELETE", "/v1/values/g6")],
    ),
    Row(
        "bytes",
        Ask("GET", "/get-value?key=g7"),
        200,
        shown("g7", "AP8=", encoding="base64", content_type="application/octet-stream"),
        given=[Ask("PUT", "/v1/values/g7", b"\0\xff")],
    ),
    Row(
        "no bytes",
        Ask("GET", "/get-value?key=g8"),
        200,
        shown("g8", "", encoding="utf-8", content_type='text/plain;x="a b"'),
        given=[Ask("PUT", "/v1/values/g8", b"", {"Content-Type": 'text/plain;x="a b"'})],
    ),
    Row(
        "text",
        Ask("GET", "/get-value?key=g13"),
        200,
        shown("g13", 'a\n"é\u2028\x7f', encoding="utf-8", content_type="TEXT/CSV"),
        given=[
            Ask(
                "PUT",
                "/v1/values/g13",
                'a\n"é\u2028\x7f'.encode(),
                {"Content-Type": "TEXT/CSV"},
            )
        ],
    ),
    Row(
        "text that is not UTF-8",
        Ask("GET", "/get-value?key=g14"),
        200,
        shown("g14", "Y2Fm6Q==", encoding="base64", content_type="text/plain"),
        given=[Ask("PUT", "/v1/values/g14", b"caf\xe9", {"Content-Type": "text/plain"})],
    ),
    Row(
        "a large text",
        Ask("GET", "/get-value?key=g15"),
        200,
        shown("g15", "é\t" * 200_000, encoding="utf-8", content_type="text/plain"),
        given=[
            Ask(
                "PUT",
                "/v1/values/g15",
                ("é\t" * 200_000).encode(),
                {"Content-Type": "text/plain"},
            )
        ],
    ),
    Row(
        "from the database",
        Ask("GET", "/get-value?key=g16", headers={"Cache-Control": "max-age=0, No-Cache"}),
        200,
        shown("g16", "old"),
        {**ONE_ENTRY, "x-cache": "BYPASS"},
        [put("g16")],
        (Ask("GET", "/get-value?key=g16"), 200, shown("g16", "old")),
    ),
    Row(
        "absent from the database",
        Ask("GET", "/get-value?key=g17", headers={"Cache-Control": "no-cache"}),
        404,
        problem("no-such-key", 404),
        {"x-cache": "BYPASS"},
    ),
    Row(
        "another directive",
        Ask("GET", "/get-value?key=g18", headers={"Cache-Control": "max-age=0"}),
        200,
        shown("g18", "old"),
        {**ONE_ENTRY, "x-cache": "HIT"},
        [put("g18")],
    ),
    Row(
        "HEAD",
        Ask("HEAD", "/get-value?key=g9"),
        200,
        b"",
        {**ONE_ENTRY, "etag": '"$V"', "x-cache": "HIT"},
        [put("g9")],
    ),
    Row(
        "HEAD of what is absent",
        Ask("HEAD", "/get-value?key=absent2"),
        404,
        b"",
        {"content-type": "application/problem+json"},
    ),
    Row(
        "If-None-Match",
        Ask("GET", "/get-value?key=g10", headers={"If-None-Match": '"1", "$V"'}),
        304,
        b"",
        {"etag": '"$V"', "cache-control": "no-cache", "x-cache": "HIT", "content-type": None},
        [put("g10")],
    ),
    Row(
        "If-None-Match compares weakly",
        Ask("GET", "/get-value?key=g11", headers={"If-None-Match": 'W/"$V"'}),
        304,
        given=[put("g11")],
    ),
    Row(
        "If-None-Match: *",
        Ask("GET", "/get-value?key=g12", headers={"If-None-Match": "*"}),
        304,
        given=[put("g12")],
    ),
    Row(
        "If-None-Match of another version",
        Ask("GET", "/get-value?key=g13", headers={"If-None-Match": '"1"'}),
        200,
        given=[put("g13")],
    ),
    Row(
        "If-Match of another version",
        Ask("GET", "/get-value?key=g14", headers={"If-Match": '"1"'}),
        412,
        problem("condition-failed", 412, key="g14", version=VERSION),
        given=[put("g14")],
    ),
    Row(
        "If-Match compares strongly",
        Ask("GET", "/get-value?key=g14w", headers={"If-Match": 'W/"$V"'}),
        412,
        given=[put("g14w")],
    ),
    Row(
        "If-Match comes before If-None-Match",
        Ask("GET", "/get-value?key=g15", headers={"If-Match": '"1"', "If-None-Match": '"$V"'}),
        412,
        given=[put("g15")],
    ),
    Row(
        "conditions on what is absent",
        Ask("GET", "/get-value?key=absent3", headers={"If-Match": '"1"', "If-None-Match": "*"}),
        404,
    ),
    Row(
        "If-None-Match malformed",
        Ask("GET", "/get-value?key=g16", headers={"If-None-Match": "1"}),
        400,
        invalid("If-None-Match"),
        given=[put("g16")],
    ),
    Row(
        "dates are no conditions here",
        Ask(
            "GET",
            "/get-value?key=g17",
            headers={"If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"},
        ),
        200,
        given=[put("g17")],
    ),
    Row(
        "Accept is ignored",
        Ask("GET", "/get-value?key=g18", headers={"Accept": "text/html"}),
        200,
        headers={"content-type": "application/json"},
        given=[put("g18")],
    ),
]

DELETE = [
    Row(
        "by query",
        Ask("DELETE", "/delete-value?key=d1"),
        204,
        b"",
        {"content-length": None, "content-type": None},
        [put("d1")],
        then=(Ask("GET", "/get-value?key=d1"), 404, None),
    ),
    Row(
        "by body",
        Ask("DELETE", "/delete-value", '{"key": "d2"}'),
        204,
        given=[put("d2")],
        then=(Ask("GET", "/get-value?key=d2"), 404, None),
    ),
    Row("absent", Ask("DELETE", "/delete-value?key=d3"), 204, b""),
    Row(
        "both, different", Ask("DELETE", "/delete-value?key=d", '{"key":"e"}'), 400, invalid("key")
    ),
    Row("no key", Ask("DELETE", "/delete-value"), 400, invalid("key")),
    Row(
        "if_version in the query",
        Ask("DELETE", "/delete-value?key=d4&if_version=$V"),
        204,
        given=[put("d4")],
        then=(Ask("GET", "/get-value?key=d4"), 404, None),
    ),
    Row(
        "another if_version in the body",
        Ask("DELETE", "/delete-value", '{"key":"d5","if_version":1}'),
        412,
        problem("condition-failed", 412, key="d5", version=VERSION),
        given=[put("d5")],
        then=(Ask("GET", "/v1/values/d5"), 200, b'"old"'),
    ),
    Row(
        "if_version different",
        Ask("DELETE", "/delete-value?key=d&if_version=1", '{"if_version":2}'),
        400,
        invalid("if_version"),
    ),
    Row(
        "if_version no integer",
        Ask("DELETE", "/delete-value?key=d&if_version=x"),
        400,
        invalid("if_version"),
    ),
    Row("if_version and absent", Ask("DELETE", "/delete-value?key=d6&if_version=1"), 412),
    Row(
        "If-Match",
        Ask("DELETE", "/delete-value?key=d7", headers={"If-Match": '"$V"'}),
        204,
        given=[put("d7")],
    ),
    Row(
        "If-Match of another version",
        Ask("DELETE", "/delete-value?key=d8", headers={"If-Match": '"1"'}),
        412,
        given=[put("d8")],
    ),
]

CONDITIONS = [
    Row(
        "If-Match",
        Ask("POST", "/set-value", '{"key":"c1","value":1}', {"If-Match": '"$V"'}),
        200,
        given=[put("c1")],
    ),
    Row(
        "If-Match of another version",
        Ask("POST", "/set-value", '{"key":"c2","value":1}', {"If-Match": '"1"'}),
        412,
        problem("condition-failed", 412, key="c2", version=VERSION),
        given=[put("c2")],
        then=(Ask("GET", "/v1/values/c2"), 200, b'"old"'),
    ),
    Row(
        "If-Match compares strongly",
        Ask("POST", "/set-value", '{"key":"c3","value":1}', {"If-Match": 'W/"$V"'}),
        412,
        given=[put("c3")],
    ),
    Row(
        "If-Match, a list",
        Ask("POST", "/set-value", '{"key":"c4","value":1}', {"If-Match": '"x,y", "$V" , "1"'}),
        200,
        given=[put("c4")],
    ),
    Row(
        "If-Match on two lines",
        Ask(
            "POST",
            "/set-value",
            '{"key":"c5","value":1}',
            [("If-Match", '"1"'), ("If-Match", '"$V"')],
        ),
        200,
        given=[put("c5")],
    ),
    Row(
        "If-Match: * and absent",
        Ask("POST", "/set-value", '{"key":"c6","value":1}', {"If-Match": "*"}),
        412,
    ),
    Row(
        "If-Match: * and there",
        Ask("POST", "/set-value", '{"key":"c7","value":1}', {"If-Match": "*"}),
        200,
        given=[put("c7")],
    ),
    Row(
        "If-None-Match: * and absent",
        Ask("POST", "/set-value", '{"key":"c8","value":1}', {"If-None-Match": "*"}),
        200,
    ),
    Row(
        "If-None-Match: * and there",
        Ask("POST", "/set-value", '{"key":"c9","value":1}', {"If-None-Match": "*"}),
        412,
        given=[put("c9")],
    ),
    Row(
        "If-None-Match of this version",
        Ask("POST", "/set-value", '{"key":"c10","value":1}', {"If-None-Match": '"$V"'}),
        412,
        given=[put("c10")],
    ),
    Row(
        "If-None-Match of another version",
        Ask("POST", "/set-value", '{"key":"c11","value":1}', {"If-None-Match": '"1"'}),
        200,
        given=[put("c11")],
    ),
    Row(
        "header and body must both hold",
        Ask("POST", "/set-value", '{"key":"c12","value":1,"if_version":$V}', {"If-Match": '"1"'}),
        412,
        given=[put("c12")],
    ),
    Row(
        "header and body both hold",
        Ask("POST", "/set-value", '{"key":"c13","value":1,"if_version":$V}', {"If-Match": "*"}),
        200,
        given=[put("c13")],
    ),
    Row(
        "malformed",
        Ask("POST", "/set-value", '{"key":"c14","value":1}', {"If-Match": "7"}),
        400,
        invalid("If-Match"),
    ),
    Row(
        "a list without commas",
        Ask("POST", "/set-value", '{"key":"c14","value":1}', {"If-Match": '"1" "2"'}),
        400,
        invalid("If-Match"),
    ),
    Row(
        "* in a list",
        Ask("POST", "/set-value", '{"key":"c14","value":1}', {"If-Match": '*, "1"'}),
        400,
        invalid("If-Match"),
    ),
    Row(
        "commas to spare",
        Ask("POST", "/set-value", '{"key":"c16","value":1}', {"If-Match": ', "$V" , ,'}),
        200,
        given=[put("c16")],
    ),
    Row(
        "empty",
        Ask("POST", "/set-value", '{"key":"c15","value":1}', {"If-Match": ""}),
        400,
        invalid("If-Match"),
    ),
]


@pytest.mark.parametrize("row", SET, ids=name_of)
async def test_set(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", GET, ids=name_of)
async def test_get(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", DELETE, ids=name_of)
async def test_delete(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", CONDITIONS, ids=name_of)
async def test_conditional_set(server: Server, row: Row) -> None:
    await row.check(server)


TEXTS = [
    "1.0",
    "-0",
    "1e400",
    "1E+2",
    "123456789012345678901234567890.123456789012345678901234567890",
    '{"b": 1, "a":  2, "b": 3}',
    r'"\u00e9\/\n"',
    '"é\x7f"',
    "[ ]",
    '{\n\t"a" :\r[null , true]}',
    "null",
    '""',
]


@pytest.mark.parametrize("text", TEXTS)
async def test_a_json_value_comes_back_as_it_was_written(server: Server, text: str) -> None:
    body = '{"value" :\n %s , "key":"text"}' % text
    assert (await server.ask("POST", "/set-value", body)).status == 200
    raw = await server.ask("GET", "/v1/values/text")
    assert raw.body == text.encode() and raw.headers["content-type"] == "application/json"
    shown = await server.ask("GET", "/get-value?key=text")
    assert b'"value":' + text.encode() + b',"id"' in shown.body
    listed = await server.ask("GET", "/get-values?prefix=text")
    assert b'"value":' + text.encode() + b',"id"' in listed.body


async def test_an_id_lives_as_long_as_its_key_and_versions_grow(server: Server) -> None:
    first = await server.ask("POST", "/set-value", '{"key":"life","value":1}')
    second = await server.ask("POST", "/set-value", '{"key":"life","value":2}')
    await server.ask("DELETE", "/delete-value?key=life")
    third = await server.ask("POST", "/set-value", '{"key":"life","value":2}')
    assert first.json["id"] == second.json["id"] != third.json["id"]
    assert first.json["version"] < second.json["version"] < third.json["version"]
    assert third.headers["etag"] == f'"{third.json["version"]}"'
    assert (first.json["created"], second.json["created"], third.json["created"]) == (
        True,
        False,
        True,
    )


@pytest.mark.parametrize("condition", ["if_version", "if_absent", "If-Match", "If-None-Match"])
async def test_of_racing_writers_one_wins(server: Server, condition: str) -> None:
    key = f"race/{condition}"
    version = 0
    if condition in ("if_version", "If-Match"):
        version = int((await put(key).send(server, "")).version)
    headers = {"If-Match": f'"{version}"', "If-None-Match": "*"}
    body: dict[str, object] = {"if_version": version, "if_absent": True}

    async def write(number: int) -> int:
        document: dict[str, object] = {"key": key, "value": number}
        if condition in body:
            document[condition] = body[condition]
        given = {condition: headers[condition]} if condition in headers else {}
        return (await server.ask("POST", "/set-value", json.dumps(document), given)).status

    statuses = await asyncio.gather(*map(write, range(20)))
    assert sorted(statuses) == [200] + [412] * 19
    answer = await server.ask("GET", f"/v1/values/{key}")
    assert int(answer.body) == statuses.index(200)


async def test_what_has_expired_is_absent_everywhere(server: Server) -> None:
    answer = await server.ask("POST", "/set-value", '{"key":"brief/1","value":1,"ttl":0.05}')
    while server.cache.now() < answer.json["expires_at"]:
        pass
    assert (await server.ask("GET", "/get-value?key=brief/1")).status == 404
    assert (await server.ask("GET", "/v1/values/brief/1")).status == 404
    assert (await server.ask("GET", "/get-values?prefix=brief")).json["values"] == []
    bulk = await server.ask("POST", "/get-values", '{"keys":["brief/1"]}')
    assert bulk.json == {"values": [], "missing": ["brief/1"]}
    again = await server.ask("POST", "/set-value", '{"key":"brief/1","value":1,"if_absent":true}')
    assert again.json["created"] is True and again.json["id"] != answer.json["id"]


async def test_head_has_the_length_of_the_answer_to_get(server: Server) -> None:
    await server.ask("POST", "/set-value", '{"key":"head","value":[1,2,3]}')
    for target in (
        "/get-value?key=head",
        "/get-value?key=nothing",
        "/v1/values/head",
        "/get-values?prefix=head",
        "/v1/values?prefix=head",
        "/health-check",
        "/livez",
    ):
        get, head = await server.ask("GET", target), await server.ask("HEAD", target)
        assert head.status == get.status and head.body == b""
        assert head.headers["content-length"] == str(len(get.body))
        assert head.headers.keys() == get.headers.keys()
