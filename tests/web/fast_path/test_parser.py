"""Which requests are plain, and which are not."""

from __future__ import annotations

import pytest

from tenantbase.web.fast_path import parser as parsing
from tenantbase.web.fast_path.parser import (
    GENERAL,
    GET_VALUE,
    INCOMPLETE,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Other,
    RequestParser,
)
from tests.web.corpus import PLAIN, RARE
from tests.wire import request


@pytest.mark.parametrize("name", PLAIN)
def test_plain_requests_are_recognised(name: str) -> None:
    found = RequestParser(lambda headers: True).parse(PLAIN[name])
    assert not isinstance(found, Other)
    assert found.end == len(PLAIN[name])
    # The same in the middle of a pipeline.
    found = RequestParser(lambda headers: True).parse(b"GET " + PLAIN[name] + b"GET", 4)
    assert not isinstance(found, Other)
    assert found.end == 4 + len(PLAIN[name])


@pytest.mark.parametrize("name", RARE)
def test_rare_requests_are_left_to_the_general_parser(name: str) -> None:
    """Requests whose only fault is their JSON or their Host look plain at first."""
    looks_plain = {
        "foreign host",
        "set from a page",
        "set, no JSON",
        "set, no value",
        "set, unknown field",
        "set, condition fails",
        "values, no JSON",
        "values, unknown field",
        "values, not a key",
    }
    found = RequestParser(lambda headers: True).parse(RARE[name])
    assert (found is GENERAL) == (name not in looks_plain)


@pytest.mark.parametrize("name", PLAIN)
def test_every_beginning_of_a_plain_request_is_incomplete(name: str) -> None:
    whole = PLAIN[name]
    parser = RequestParser(lambda headers: True)
    for cut in range(1, len(whole)):
        assert parser.parse(whole[:cut]) is INCOMPLETE, whole[:cut]


def test_an_endless_head_or_body_is_not_waited_for() -> None:
    parse = RequestParser(lambda headers: True).parse
    endless = b"GET /get-value?key=" + b"k" * MAX_HEAD_BYTES
    assert parse(endless) is GENERAL
    assert parse(request("POST", "/set-value", b"x" * (MAX_BODY_BYTES + 1))) is GENERAL


def test_each_different_head_is_checked_once() -> None:
    asked = []

    def judge(headers: object) -> str | None:
        asked.append(headers)
        return "verdict" if len(asked) == 1 else None

    parse = RequestParser(judge).parse
    good, bad = PLAIN["value"], PLAIN["absent"]
    for _ in range(3):
        found = parse(good)
        assert not isinstance(found, Other)
        assert found.route is GET_VALUE and found.verdict == "verdict"
        assert parse(bad) is GENERAL
    assert len(asked) == 2


def test_requests_are_remembered_as_they_are_alone() -> None:
    """In a pipeline, where a request begins and ends is not what was remembered."""
    parse = RequestParser(lambda headers: True).parse
    get, other = request("GET", "/get-value?key=k"), request("GET", "/get-value?key=other")
    for data, start, key in [
        (get, 0, "k"),
        (other + get, len(other), "k"),
        (other + get, 0, "other"),
        (get, 0, "k"),
        (get + other, 0, "k"),
        (other + get, 0, "other"),
        (other, 0, "other"),
    ]:
        for _ in range(2):
            found = parse(data, start)
            assert not isinstance(found, Other)
            assert found.key == key
            assert found.end == start + len(get if key == "k" else other)


def test_requests_with_an_id_are_not_remembered() -> None:
    parser = RequestParser(lambda headers: True)
    asked = request("GET", "/get-value?key=k", headers={"X-Request-Id": "one"})
    for _ in range(2):
        found = parser.parse(asked)
        assert not isinstance(found, Other) and found.context is not None
    assert not parser._requests


def test_few_and_short_requests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_CACHED_REQUESTS", 3)
    parser = RequestParser(lambda headers: True)
    for number in range(10):
        parser.parse(request("GET", f"/get-value?key={number}"))
        assert 0 < len(parser._requests) <= 3
    parser._requests.clear()
    for method, target, body, headers in [
        ("GET", "/get-value?key=" + "k" * 600, "", {}),
        ("GET", "/get-value?key=k", "", {"X-Long": "x" * 600}),
        ("POST", "/set-value", '{"key":"k","value":1}', {}),
    ]:
        assert not isinstance(parser.parse(request(method, target, body, headers)), Other)
    assert not parser._requests


# Fields that clients, proxies and tracers add, and that do not affect answers to plain requests.
HARMLESS = [
    "Cookie: a=b",
    "DNT: 1",
    "Forwarded: for=192.0.2.1",
    "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    "Sec-Fetch-Mode: cors",
    "TE: trailers",
    "X-Forwarded-For: 192.0.2.1, 192.0.2.2",
    "X-Request-ID: 1",
    "X-Empty:",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
]
MATTERS = [
    "Connection: close",
    "Connection: upgrade",
    "Content-Encoding: gzip",
    "Expect: 100-continue",
    "If-Match: *",
    "If-None-Match: *",
    "If-Range: x",
    "Range: bytes=0-1",
    "Trailer: x",
    "Transfer-Encoding: chunked",
    "Upgrade: h2c",
    "X-Odd: \xff",
    "X Odd: 1",
    " folded",
]


def with_field(field: str, key: str = "k") -> bytes:
    head = f"GET /get-value?key={key} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n"
    return head.encode("latin-1")


@pytest.mark.parametrize("field", HARMLESS)
def test_fields_that_change_nothing_leave_a_request_plain(field: str) -> None:
    parse = RequestParser(lambda headers: True).parse
    assert not isinstance(parse(with_field(field)), Other)
    assert not isinstance(parse(with_field(f"{field}\r\n{field}")), Other)


@pytest.mark.parametrize("field", ["Authorization: Bearer tb_x", "X-Tenant: a"])
def test_fields_about_the_caller_are_judged_and_may_come_once(field: str) -> None:
    name, _, value = field.partition(": ")
    parse = RequestParser(lambda headers: headers[name]).parse
    found = parse(with_field(field))
    assert not isinstance(found, Other) and found.verdict == value
    assert parse(with_field(f"{field}\r\n{field}")) is GENERAL


@pytest.mark.parametrize("field", MATTERS)
def test_relevant_fields_are_left_to_the_general_parser(field: str) -> None:
    assert RequestParser(lambda headers: True).parse(with_field(field)) is GENERAL


def test_ever_different_fields_are_not_remembered_forever() -> None:
    parser = RequestParser(lambda headers: True)
    for number in range(2_000):
        assert not isinstance(parser.parse(with_field(f"traceparent: {number}")), Other)
        assert not isinstance(parser.parse(with_field(f"Origin: http://{number}")), Other)
    assert len(parser._blocks) <= 512
    assert len(parser._fields) <= 512
    assert len(parser._judged) <= 512


@pytest.mark.parametrize(
    ("escaped", "key"),
    [
        ("a%20b", "a b"),
        ("%2Fa%2f", "/a/"),
        ("%E2%82%AC", "\u20ac"),
        ("100%25", "100%"),
        ("%2e%2E", ".."),
        ("%41" * 1024, "A" * 1024),
    ],
)
def test_escaped_keys_are_plain(escaped: str, key: str) -> None:
    found = RequestParser(lambda headers: True).parse(with_field("Accept: */*", escaped))
    assert not isinstance(found, Other)
    assert found.key == key


@pytest.mark.parametrize("escaped", ["a%", "a%2", "a%zz", "%00", "%FF", "%41" * 1025, "a+b", "a&b"])
def test_odd_keys_are_left_to_the_general_parser(escaped: str) -> None:
    assert RequestParser(lambda headers: True).parse(with_field("A: b", escaped)) is GENERAL
