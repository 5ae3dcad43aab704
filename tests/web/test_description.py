"""The OpenAPI document is correct about each server, operation and header."""

from __future__ import annotations

from typing import Any

import pytest

from tenantbase.web.caller import PUBLIC
from tenantbase.web.openapi.document import description
from tenantbase.web.openapi.operations import OPERATIONS
from tenantbase.web.problems import KINDS
from tests.service import web_settings

DOCUMENT = description(web_settings())


def described(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def test_the_limits_are_those_of_the_server() -> None:
    settings = web_settings(max_value_bytes=12_345, max_batch_entries=678)
    told = {
        name: [
            schema.get("properties", {})[name]["description"]
            for schema in description(settings)["components"]["schemas"].values()
            if name in schema.get("properties", {})
        ]
        for name in ("value", "keys")
    }
    # A description in a type takes precedence over the one for the field's name.
    assert told["value"].count("The new value.") == 1
    told["value"].remove("The new value.")
    assert told["value"] and all("At most 12,345 bytes." in each for each in told["value"])
    assert told["keys"] and all("At most 678." in each for each in told["keys"])


@pytest.mark.parametrize("path", ["/v1/values/{key}", "/get-value", "/v1/values"])
def test_head_is_get_without_content_and_ranges(path: str) -> None:
    get, head = described("get", path), described("head", path)
    assert head["responses"].keys() == get["responses"].keys() - {"206"}
    for response in head["responses"].values():
        assert "content" not in response
    assert "206" in described("get", "/v1/values/{key}")["responses"]


def test_headers_are_required_where_they_always_come() -> None:
    for operation in OPERATIONS:
        responses = described(operation.method, operation.path)["responses"]
        for reply in operation.replies:
            found = responses[str(reply.status)]["headers"]
            for name in reply.headers:
                assert found[name]["required"], (operation.name, name)
            for name in reply.sometimes:
                assert not found[name]["required"], (operation.name, name)


def problems(method: str, path: str, status: int) -> dict[str, Any]:
    """The description of an operation's problems with this status; empty: there are none."""
    reference = described(method, path)["responses"].get(str(status), {}).get("$ref", "/")
    found: dict[str, Any] = DOCUMENT["components"]["responses"].get(
        reference.rpartition("/")[2], {}
    )
    return found


def names(problem: dict[str, Any]) -> set[str]:
    """The types of problem in a description."""
    return {name for content in problem["content"].values() for name in content["examples"]}


def test_every_route_that_needs_a_token_reads_the_tenants_name() -> None:
    for operation in OPERATIONS:
        found = described(operation.method, operation.path)
        named = [each for each in found["parameters"] if each["name"] == "X-Tenant"]
        unknown = problems(operation.method, operation.path, 404)
        refused = problems(operation.method, operation.path, 401)
        if operation.path in PUBLIC:
            assert (named, refused) == ([], {}), operation.path
            continue
        assert [(each["in"], each["required"]) for each in named] == [("header", False)]
        assert "no-such-tenant" in names(unknown), operation.path
        assert refused["headers"]["WWW-Authenticate"]["required"]


def test_limits_that_any_request_may_meet() -> None:
    for path, limited, rated in (
        ("/get-value", True, True),
        ("/v1/whoami", True, True),
        ("/v1/tokens", True, False),
        ("/docs", True, False),
        ("/livez", False, False),
    ):
        over, rate = problems("get", path, 503), problems("get", path, 429)
        assert (bool(over) and "over-limit" in names(over)) == limited, path
        assert (bool(rate) and "rate-limited" in names(rate)) == rated, path
    alone = problems("get", "/get-value", 429)["headers"]
    for name in ("Retry-After", "RateLimit-Policy", "RateLimit"):
        assert alone[name]["required"], name
    shared = problems("post", "/set-value", 429)["headers"]
    assert (shared["Retry-After"]["required"], shared["RateLimit"]["required"]) == (True, False)


def test_problems_that_pass_say_when_to_try_again() -> None:
    responses = DOCUMENT["components"]["responses"]
    passing = 0
    for response in responses.values():
        (content,) = response["content"].values()
        kinds = [KINDS[name] for name in content["examples"]]
        assert ("Retry-After" in response["headers"]) == any(kind.retry for kind in kinds)
        passing += "Retry-After" in response["headers"]
    assert passing


def test_each_operation_has_its_problems() -> None:
    for operation in OPERATIONS:
        responses = described(operation.method, operation.path)["responses"]
        for name in operation.problems:
            assert str(KINDS[name].status) in responses, (operation.name, name)
            reference = responses[str(KINDS[name].status)]["$ref"].rpartition("/")[2]
            (content,) = DOCUMENT["components"]["responses"][reference]["content"].values()
            assert name in content["examples"]


def test_bodies_are_required_where_an_operation_needs_one() -> None:
    required = {
        operation.name: described(operation.method, operation.path)["requestBody"]["required"]
        for operation in OPERATIONS
        if operation.body
    }
    assert required == {each.name: each.body_required for each in OPERATIONS if each.body}
    assert {True, False} == set(required.values())
