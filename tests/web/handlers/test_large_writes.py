"""Large bodies of writes are never parsed by the serving process, whatever the route."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest

from tenantbase import json_text
from tenantbase.json_text import check_utf8
from tenantbase.offload.runner import OFFLOAD_BYTES, is_large
from tests.service import web_settings
from tests.web.conftest import Start

LARGE = b"[" + b"1234567, " * (OFFLOAD_BYTES // 9) + b'"\xc3\xa9"]'
BRACKETS = b"[" + b"{}, " * (1 << 19) + b"{}]"
LONE = LARGE[:-1] + rb', "\ud83d"]'
SETTINGS = web_settings(max_value_bytes=16 << 20, max_request_bytes=24 << 20)

# The ways to write a value, by route: method, target, body, content type, field of the value.
WAYS: dict[str, Callable[[bytes], tuple[str, str, bytes, str, str]]] = {
    "set-value": lambda v: (
        *("POST", "/set-value", b'{"key":"k","value":%b,"ttl":60}' % v),
        *("application/json", "value"),
    ),
    "base64": lambda v: (
        *("POST", "/set-value"),
        b'{"key":"k","value":"%b","encoding":"base64","content_type":"application/json"}'
        % b64encode(v),
        *("application/json", "value"),
    ),
    "set-values": lambda v: (
        *("POST", "/set-values"),
        b'{"values":[{"key":"a","value":1},{"key":"k","value":%b},{"key":"z","value":2}]}' % v,
        *("application/json", "values[1].value"),
    ),
    "PUT": lambda v: ("PUT", "/v1/values/k", v, "application/json", "value"),
}


@pytest.fixture(autouse=True)
def _no_large_text_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every JSON text to be parsed passes this check first."""

    def check(text: bytes, field: str | None) -> None:
        assert not is_large(text), "a large text is read by the event loop"
        check_utf8(text, field)

    monkeypatch.setattr(json_text, "check_utf8", check)


@pytest.mark.parametrize("value", [LARGE, BRACKETS], ids=["large", "brackets"])
@pytest.mark.parametrize("way", WAYS)
async def test_it_is_stored(start: Start, way: str, value: bytes) -> None:
    method, target, body, content_type, _ = WAYS[way](value)
    async with start(SETTINGS) as server:
        answer = await server.ask(method, target, body, [("Content-Type", content_type)])
        assert answer.status in (200, 201), answer.body
        assert (await server.ask("GET", "/v1/values/k")).body == value


@pytest.mark.parametrize("way", WAYS)
async def test_errors_name_the_problem(start: Start, way: str) -> None:
    method, target, body, content_type, field = WAYS[way](LONE)
    async with start(SETTINGS) as server:
        answer = await server.ask(method, target, body, [("Content-Type", content_type)])
        assert answer.status == 400
        assert "lone surrogate" in answer.json["detail"]
        if way in ("base64", "PUT"):  # otherwise the error is found before its position is known
            assert answer.json["field"] == field
        assert (await server.ask("GET", "/v1/values/k")).status == 404


async def test_a_large_body_with_too_large_a_value(start: Start) -> None:
    async with start(web_settings()) as server:
        body = b'{"values":[{"key":"k","value":%b}]}' % LARGE
        answer = await server.ask("POST", "/set-values", body)
        assert answer.status == 413
        assert answer.json["field"] == "values[0].value"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/get-values"),
        ("POST", "/delete-values"),
        ("POST", "/increment-value"),
        ("GET", "/get-value"),
        ("DELETE", "/delete-value"),
    ],
)
async def test_bodies_without_values_are_bounded(start: Start, method: str, target: str) -> None:
    async with start(SETTINGS) as server:
        answer = await server.ask(method, target, b" " * (1 << 24) + b"1")
        assert answer.status == 413
