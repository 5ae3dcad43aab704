"""The OpenAPI document describes every route and problem, and refers to nothing that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.web import Lifecycle, create_app
from tenantbase.web.openapi.document import description
from tenantbase.web.problems import KINDS
from tests.service import web_settings

DOCUMENT = description(web_settings())
OPERATIONS = [
    (method, path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


async def test_every_route_is_described(tmp_path: Path) -> None:
    async with open_database(Config(database=tmp_path / "x.db")) as database:
        app = create_app(database, web_settings(), Lifecycle())
        routes = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None
        }
    assert {(method.upper(), path) for method, path, _ in OPERATIONS} == routes


def test_every_problem_is_described() -> None:
    named = {
        name
        for response in DOCUMENT["components"]["responses"].values()
        for content in response["content"].values()
        for name in content["examples"]
    }
    # Problem types that do not belong to an operation.
    assert named == KINDS.keys() - {"method-not-allowed"}


def test_references_resolve() -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    found = set(references(DOCUMENT))
    there = {
        f"#/components/{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes"
    }
    assert found == there
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
