"""The rules for JSON hold for every route."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from tests.json_cases import DEEP, REFUSED
from tests.service import Server
from tests.web.table import Ask, invalid

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

JSON_TYPE = {"Content-Type": "application/json"}

# The ways to write a value by HTTP, and the field that an error names.
ROUTES: dict[str, tuple[Callable[[str], Ask], str]] = {
    "set-value": (lambda v: Ask("POST", "/set-value", '{"key":"j","value":%s}' % v), "value"),
    "set-value in base64": (
        lambda v: Ask(
            "POST",
            "/set-value",
            '{"key":"j","value":"%s","encoding":"base64","content_type":"application/json"}'
            % b64encode(v.encode()).decode(),
        ),
        "value",
    ),
    "set-values": (
        lambda v: Ask("POST", "/set-values", '{"values":[{"key":"j","value":%s}]}' % v),
        "values[0].value",
    ),
    "PUT": (lambda v: Ask("PUT", "/v1/values/j", v, JSON_TYPE), "value"),
}


@pytest.mark.parametrize("route", ROUTES)
async def test_the_deepest_value_is_stored(server: Server, route: str) -> None:
    ask, _ = ROUTES[route]
    assert (await ask(DEEP).send(server, "")).status in (200, 201)
    assert (await server.ask("GET", "/v1/values/j")).body == DEEP.encode()
    one, many = await server.ask("GET", "/get-value?key=j"), await server.ask("GET", "/get-values")
    assert one.json["value"] == json.loads(DEEP) and many.status == 200


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_refuses_the_same_json(server: Server, route: str, name: str) -> None:
    ask, field = ROUTES[route]
    value, detail = REFUSED[name]
    await ask("1").send(server, "")
    answer = await ask(value).send(server, "")
    assert answer.status == 400 and detail in answer.json["detail"], answer
    assert answer.json.get("field") in (field, None)  # None from the body's parser
    assert (await server.ask("GET", "/v1/values/j")).body == b"1"


TWICE = [
    ("POST", "/set-value", '{"key":"d1","value":1,"value":2}', "value"),
    ("POST", "/set-value", '{"key":"d1","value":{"a":1},"ttl":1,"ttl":2}', "ttl"),
    ("POST", "/set-value", r'{"k\u0065y":"d1","value":1,"key":"d1"}', "key"),
    ("POST", "/set-values", '{"values":[{"key":"d1","value":1}],"values":[]}', "values"),
    (
        "POST",
        "/set-values",
        '{"values":[{"key":"d1","value":1},{"key":"d2","key":"d3","value":1}]}',
        "values[1].key",
    ),
    ("POST", "/get-values", '{"keys":["d1"],"keys":["d2"]}', "keys"),
    ("POST", "/delete-values", '{"keys":["d0"],"prefix":null,"keys":[]}', "keys"),
    ("POST", "/increment-value", '{"key":"d1","by":1,"by":2}', "by"),
    ("GET", "/get-value", '{"key":"d0","key":"d1"}', "key"),
    ("DELETE", "/delete-value", '{"key":"d1","key":"d0"}', "key"),
]


@pytest.mark.parametrize(("method", "target", "body", "field"), TWICE)
async def test_a_field_given_twice(
    server: Server, method: str, target: str, body: str, field: str
) -> None:
    await server.ask("PUT", "/v1/values/d0", "old")
    answer = await server.ask(method, target, body)
    assert answer.status == 400, answer
    assert answer.json == invalid(field)
    assert "more than once" in answer.json["detail"]
    assert (await server.ask("GET", "/v1/values/d0")).body == b"old"
    assert (await server.ask("GET", "/v1/values/d1")).status == 404


NULLS = [
    ("/set-value", '{"key":"n1","value":1,%s}'),
    ("/set-values", '{"values":[{"key":"n1","value":1,%s}]}'),
]


@pytest.mark.parametrize(("target", "body"), NULLS)
async def test_null_means_left_out(server: Server, target: str, body: str) -> None:
    names = ("encoding", "content_type", "ttl", "expires_at", "if_version", "if_absent")
    answer = await server.ask("POST", target, body % ",".join(f'"{name}":null' for name in names))
    assert answer.status == 200, answer


async def test_null_in_an_increment(server: Server) -> None:
    body = '{"key":"n2","ttl":null,"expires_at":null,"if_version":null,"if_absent":null}'
    assert (await server.ask("POST", "/increment-value", body)).json["value"] == 1
