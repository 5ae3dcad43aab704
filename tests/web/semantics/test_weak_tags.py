"""Entity tags in conditions, especially weak ones, which proxies make when they compress
answers."""

from __future__ import annotations

import pytest

from tests.service import Server
from tests.web.table import problem

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_if_none_match_on_writes_compares_weakly(server: Server, method: str) -> None:
    tag = (await server.ask("PUT", "/v1/values/weak", "x")).headers["etag"]
    for given in (f"W/{tag}", f'"0", W/{tag}', tag):
        answer = await server.ask(method, "/v1/values/weak", "y", {"If-None-Match": given})
        assert answer.status == 412 and "weak" not in answer.json["detail"].replace("'weak'", "")
    other = await server.ask(method, "/v1/values/weak", "y", {"If-None-Match": 'W/"0"'})
    assert other.status in (200, 204)


async def test_if_none_match_on_reads_compares_weakly(server: Server) -> None:
    tag = (await server.ask("PUT", "/v1/values/weak", "x")).headers["etag"]
    for target in ("/v1/values/weak", "/get-value?key=weak"):
        answer = await server.ask("GET", target, headers={"If-None-Match": f"W/{tag}"})
        assert answer.status == 304


WEAKLY = [
    ("PUT", "/v1/values/weak", "y"),
    ("DELETE", "/v1/values/weak", None),
    ("GET", "/v1/values/weak", None),
    ("GET", "/get-value?key=weak", None),
    ("POST", "/set-value", '{"key": "weak", "value": 1}'),
    ("POST", "/set-values", '{"values": [{"key": "weak", "value": 1}]}'),
    ("DELETE", "/delete-value?key=weak", None),
    ("POST", "/delete-values", '{"keys": ["weak"]}'),
    ("POST", "/increment-value", '{"key": "weak"}'),
]


@pytest.mark.parametrize(("method", "target", "body"), WEAKLY)
async def test_a_weak_tag_in_if_match_is_explained(
    server: Server, method: str, target: str, body: str | None
) -> None:
    tag = (await server.ask("PUT", "/v1/values/weak", "x")).headers["etag"]
    answer = await server.ask(method, target, body, {"If-Match": f"W/{tag}"})
    version = int(tag.strip('"'))
    assert answer.status == 412
    assert answer.json == problem("condition-failed", 412, key="weak", version=version)
    assert f'weak entity tag, W/"{version}"' in answer.json["detail"]
    # Other failures do not get this explanation.
    for given in ('W/"0"', '"0"'):
        answer = await server.ask(method, target, body, {"If-Match": given})
        assert answer.status == 412 and "weak entity" not in answer.json["detail"]
    assert (await server.ask("GET", "/v1/values/weak")).body == b"x"
