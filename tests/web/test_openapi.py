"""The OpenAPI document is correct: requests generated from it get the answers it describes."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tenantbase.web.openapi.document import description
from tests.app_server import AppServer
from tests.service import web_settings

pytestmark = pytest.mark.integration  # not imported for unit tests: Schemathesis takes seconds

DOCUMENT = description(web_settings())
OPERATIONS = [
    (method, path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]
api = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def app_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with AppServer(tmp_path_factory.mktemp("server") / "x.db") as server:
        yield server


@pytest.fixture(scope="module")
def administrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server of which the requests make and revoke tokens, and headers for it."""
    with AppServer(tmp_path_factory.mktemp("closed") / "x.db") as server:
        made = server.ask("POST", "/v1/tokens", b'{"name": "test", "scope": "admin"}')
        yield server.base_url, {"Authorization": f"Bearer {made.json['token']}"}


# All operations except the one whose answer does not end.
@api.exclude(path="/v1/watch", method="GET").parametrize()
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_requests_made_from_it(
    case: schemathesis.Case[Any], administrator: tuple[str, dict[str, str]]
) -> None:
    """Every status, media type, header and shape is described, there is no 5xx, and requests that
    the document forbids are refused. (Some that it allows are refused, too: a ``ttl`` together with
    ``expires_at``, an ``If-Match`` that is not a list of tags.)"""
    url, headers = administrator
    case.call_and_validate(
        base_url=url, headers=headers, excluded_checks=[positive_data_acceptance]
    )


TEXT = {"path_parameters": {"key": "text"}}
HTML = {"path_parameters": {"key": "html"}}
SET = {"body": {"key": "k", "value": 1}, "media_type": "application/json"}
BYTES = {"body": b"x", "media_type": "application/octet-stream"}


def headers(**given: str) -> dict[str, Any]:
    return {"headers": {name.replace("_", "-"): value for name, value in given.items()}}


def query(**given: object) -> dict[str, Any]:
    return {"query": given}


def body(**given: object) -> dict[str, Any]:
    return {"body": given, "media_type": "application/json"}


CASES: list[tuple[int, str, dict[str, Any]]] = [
    (200, "GET /get-value", query(key="text")),
    (200, "GET /get-value", query(key="bytes")),
    (304, "GET /get-value", query(key="text") | headers(If_None_Match="*")),
    (412, "GET /get-value", query(key="text") | headers(If_Match='"0"')),
    (404, "GET /get-value", query(key="absent")),
    (404, "HEAD /get-value", query(key="absent")),
    (404, "GET /get-values", headers(X_Tenant="absent")),
    (404, "POST /set-value", SET | headers(X_Tenant="absent")),
    (404, "GET /v1/tokens", headers(X_Tenant="absent")),
    (400, "GET /get-values", headers(X_Tenant="not a name")),
    (200, "GET /v1/values/{key}", TEXT),
    (200, "HEAD /v1/values/{key}", TEXT),
    (206, "GET /v1/values/{key}", HTML | headers(Range="bytes=0-1")),
    (416, "GET /v1/values/{key}", TEXT | headers(Range="bytes=99-")),
    (304, "GET /v1/values/{key}", TEXT | headers(If_None_Match="*")),
    (200, "PUT /v1/values/{key}", TEXT | BYTES),
    (412, "PUT /v1/values/{key}", TEXT | BYTES | headers(If_None_Match="*")),
    (413, "PUT /v1/values/{key}", TEXT | BYTES | {"body": b"x" * (1 << 20) + b"x"}),
    (400, "PUT /v1/values/{key}", TEXT | BYTES | query(ttl=1, expires_at=1)),
    (412, "DELETE /delete-value", query(key="text", if_version=0)),
    (409, "POST /increment-value", body(key="text")),
    (200, "POST /increment-value", body(key="number", by=2**70)),
    (403, "POST /set-value", SET | headers(Origin="http://elsewhere.example")),
    (415, "POST /set-value", SET | headers(Content_Encoding="gzip")),
    (421, "GET /livez", headers(Host="elsewhere.example")),
    (417, "GET /livez", headers(Expect="nothing")),
    (414, "GET /get-values", query(prefix="x" * 20_000)),
    (431, "GET /get-values", headers(X_Large="x" * 10_000)),
    (200, "GET /get-values", query(limit=1)),
    (200, "GET /v1/values", query(fields="key")),
    (200, "GET /v1/values", headers(Accept="application/x-ndjson")),
    (200, "POST /get-values", body(keys=["text", "bytes", "absent"])),
    (200, "POST /set-values", body(values=[{"key": "many", "value": None}])),
    (200, "POST /delete-values", body(keys=["many"])),
    (200, "HEAD /v1/watch", {}),
    (400, "GET /v1/watch", query(prefix="\0")),
]


@pytest.mark.parametrize(("status", "route", "given"), CASES)
def test_answers_that_need_an_entry(
    app_server: AppServer, status: int, route: str, given: dict[str, Any]
) -> None:
    for key, kind, value in (
        ("text", "application/json", b'"text"'),
        ("bytes", "application/octet-stream", b"\0\xff"),
        ("html", "text/html", b"<html>"),
    ):
        stored = app_server.ask("PUT", f"/v1/values/{key}", value, {"Content-Type": kind})
        assert stored.status in (200, 201)
    method, path = route.split()
    case = api[path][method].Case(**given)
    answer = case.call(base_url=app_server.base_url)
    assert answer.status_code == status
    case.validate_response(
        answer,
        checks=[
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
        ],
    )


def test_examples_can_be_run(tmp_path: Path) -> None:
    # The one that makes a token comes last: no other could be run without it then.
    operations = sorted(
        (operation for _, _, operation in OPERATIONS),
        key=lambda operation: operation["operationId"] == "createToken",
    )
    examples = [
        sample["source"]
        for operation in operations
        for sample in operation.get("x-codeSamples", ())
    ]
    assert len(examples) == sum(method != "head" for method, _, _ in OPERATIONS)
    with AppServer(tmp_path / "x.db") as server:
        run_examples(server.base_url.removeprefix("http://"), examples)


def run_examples(address: str, examples: list[str]) -> None:
    for example in examples:
        done = subprocess.run(
            [
                "sh",
                "-c",
                example.replace("curl ", "curl --fail ").replace("localhost:8000", address),
            ],
            capture_output=True,
            timeout=20,
        )
        assert done.returncode == 0, (example, done)


def test_the_document_is_compressed_if_accepted(app_server: AppServer) -> None:
    plain = app_server.ask("GET", "/openapi.json")
    packed = app_server.ask("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert plain.json == DOCUMENT
    assert gzip.decompress(packed.body) == plain.body


class Page(HTMLParser):
    """Parses a page; fails if elements are not nested properly."""

    VOID = {"meta", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids |= {value for name, value in attrs if name == "id" and value}
        self.links |= {value for name, value in attrs if name == "href" and value}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page(app_server: AppServer) -> None:
    answer = app_server.ask("GET", "/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    page = Page(answer.body.decode())
    assert page.open == []
    assert not page.elements & {"script", "link", "img", "iframe", "object", "form"}
    assert not page.attributes & {"src", "style", "onclick", "action"}
    assert page.links == {"openapi.json"} | {f"#{name}" for name in page.ids}
    for method, path, operation in OPERATIONS:
        if method != "head":
            assert operation["operationId"] in page.ids
            assert path in page.text and operation["summary"] in page.text
            for parameter in operation["parameters"]:
                assert parameter["name"] in page.text
    assert "`" not in page.text


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_a_description_that_a_client_has_is_not_sent_again(
    app_server: AppServer, path: str
) -> None:
    first = app_server.ask("GET", path)
    tag = first.headers["ETag"]
    for given in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = app_server.ask("GET", path, headers={"If-None-Match": given})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == tag and "Content-Type" not in again.headers
    other = app_server.ask("GET", path, headers={"If-None-Match": '"other"'})
    assert (other.status, other.body) == (200, first.body)
