"""``Location``: the URL of a value, as seen from either side of a proxy."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from tests.service import Server

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    "path", ["loc", "%C3%BC%20%3F", "a:b", "lo/c", "lo%2Fd/", "%2e%2E", "x/../y"]
)
@pytest.mark.parametrize("prefix", ["", "/kv"])
async def test_location_is_the_target_whatever_a_proxy_did_to_its_path(
    server: Server, path: str, prefix: str
) -> None:
    proxied = path.replace("%2F", "/") if prefix else path
    await server.ask("DELETE", f"/v1/values/{proxied}")
    answer = await server.ask("PUT", f"/v1/values/{proxied}?ttl=60", "x")
    assert answer.status == 201
    sent_to = f"http://localhost{prefix}/v1/values/{path}"
    location = answer.headers["location"]
    # An empty query refers to the target's path; Python's own function drops it.
    assert (sent_to if location == "?" else urljoin(sent_to, location)) == sent_to
    again = await server.ask("PUT", f"/v1/values/{proxied}", "x")
    assert (again.status, again.headers.get("location")) == (200, None)
