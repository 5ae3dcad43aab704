"""A header is defined once: changing its definition changes the answers of both HTTP paths."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tenantbase.entry import Entry
from tenantbase.web import problems, responses
from tenantbase.web.fast_path.writer import head_template
from tests.service import web_settings
from tests.web.conftest import Start

pytestmark = pytest.mark.asyncio

PUT = ("POST", "/set-value", b'{"key": "k", "value": 1}')
GET = ("GET", "/get-value?key=k", None)
RAW = ("GET", "/v1/values/k", None)
ABSENT = ("GET", "/get-value?key=absent", None)
DELETE = ("DELETE", "/delete-value?key=absent", None)
HEALTH = ("GET", "/health-check", None)
INVALID = ("POST", "/set-value", b"{}")
# Requests that only aiohttp's path answers.
LIST = ("GET", "/get-values", None)
LIVE = ("GET", "/livez", None)
ERROR = ("GET", "/nowhere", None)
MALFORMED = ("GET", "no slash", None)

Asked = tuple[str, str, bytes | None]

# Each definition, and requests whose answers use it.
DEFINITIONS: dict[Callable[..., Any], list[Asked]] = {
    responses.common_headers: [
        *(PUT, GET, RAW, ABSENT, DELETE, HEALTH, INVALID, LIST, LIVE, ERROR, MALFORMED)
    ],
    responses.entry_headers: [GET, RAW],
    responses.written_headers: [PUT],
    responses.absent: [ABSENT, ("GET", "/v1/values/absent", None)],
    responses.deleted: [DELETE],
    responses.state: [HEALTH, LIVE],
    responses.collection: [LIST],
    problems.problem: [INVALID, ERROR, MALFORMED],
}


def edit(monkeypatch: pytest.MonkeyPatch, define: Callable[..., Any]) -> None:
    """Add a header to a definition, in every module that has imported it."""

    def edited(*args: Any, **options: Any) -> Any:
        made = define(*args, **options)
        (made if isinstance(made, dict) else made.headers)["X-Added"] = "100% new"
        return made

    for name, module in list(sys.modules.items()):
        if name.startswith("tenantbase.web"):
            for variable, bound in list(vars(module).items()):
                if bound is define:
                    monkeypatch.setattr(module, variable, edited)


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "general"])
@pytest.mark.parametrize("define", DEFINITIONS, ids=lambda define: define.__name__)
async def test_header_is_added_by_one_edit(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    define: Callable[..., Any],
    fast_path: bool,
) -> None:
    edit(monkeypatch, define)
    concerned = DEFINITIONS[define]
    async with start(web_settings(fast_path=fast_path)) as server:
        for method, target, body in [PUT, GET, RAW, *concerned]:
            answer = await server.ask(method, target, body)
            expected = "100% new" if (method, target, body) in concerned else None
            assert answer.headers.get("x-added") == expected, target


async def test_refusal_has_the_headers_of_every_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(monkeypatch, responses.common_headers)
    async with start(web_settings(max_connections=1)) as server, server.wire():
        answer = await server.ask("GET", "/livez")
        assert (answer.status, answer.headers["x-added"]) == (503, "100% new")


@pytest.mark.parametrize("also", ["key", "id", "content_type"])
async def test_template_refuses_headers_that_depend_on_more_than_the_version(also: str) -> None:
    def headers(entry: Entry) -> dict[str, str]:
        return {"ETag": f'"{entry.version}"', "X-Also": getattr(entry, also)}

    with pytest.raises(ValueError, match="only variable"):
        head_template(headers)


@pytest.mark.parametrize("etag", ["", "{0.version}, {0.version}"])
async def test_template_needs_the_version_exactly_once(etag: str) -> None:
    with pytest.raises(ValueError, match="only variable"):
        head_template(lambda entry: {"ETag": etag.format(entry)})
