"""Forwarding headers: believed from trusted proxies alone, on both HTTP paths."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest

from tenantbase.web.forwarding import Proxies
from tests.app_server import AppServer
from tests.haproxy import HAProxy
from tests.nginx import DEPLOYED, Nginx
from tests.servers import poll_async
from tests.service import web_settings
from tests.web.conftest import Start
from tests.wire import ask, request

LOOPBACK = (ip_network("127.0.0.0/8"),)
OTHER = (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ([], None),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["203.0.113.9, 10.1.1.1,10.2.2.2"], "203.0.113.9"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["203.0.113.9:1234"], "203.0.113.9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["unknown"], None),
        (["203.0.113.9, unknown"], None),
        (["203.0.113.9, "], None),
        (["203.0.113.9\n"], "203.0.113.9"),
        (["999.0.0.1"], None),
        ([", ".join(["10.1.1.1"] * 1_000)], None),
    ],
)
def test_the_client_is_the_right_most_that_is_not_trusted(
    fields: Sequence[str], client: str | None
) -> None:
    assert Proxies(OTHER).client(fields) == client


WRITES = {
    "plain": ("POST", "/set-value", '{"key":"k","value":1}'),
    "general": ("PUT", "/v1/values/k", "x"),
}


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("networks", "proto", "origin", "allowed"),
    [
        (LOOPBACK, "https", "https", True),
        (LOOPBACK, "https", "http", False),
        (LOOPBACK, "HTTP", "https", False),
        (LOOPBACK, "http", "http", True),
        (LOOPBACK, "ftp", "http", True),
        (LOOPBACK, "https, http", "http", True),
        (LOOPBACK, None, "http", True),
        (OTHER, "https", "http", True),
        ((), "https", "http", True),
    ],
)
async def test_a_trusted_scheme_decides_what_origin_is_the_servers_own(
    start: Start,
    fast_path: bool,
    write: str,
    networks: tuple[object, ...],
    proto: str | None,
    origin: str,
    allowed: bool,
) -> None:
    headers = {"Host": "localhost", "Origin": f"{origin}://localhost"}
    if proto is not None:
        headers["X-Forwarded-Proto"] = proto
    async with start(web_settings(fast_path=fast_path, trusted_proxies=networks)) as server:
        for _ in range(2):  # the second time from what the fast path remembers
            answer = await server.ask(*WRITES[write], headers)
            assert (answer.status != 403) == allowed


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("networks", [LOOPBACK, OTHER])
async def test_the_log_names_the_client_behind_a_trusted_proxy(
    start: Start,
    caplog: pytest.LogCaptureFixture,
    fast_path: bool,
    networks: tuple[object, ...],
) -> None:
    settings = web_settings(send_timeout=0.5, fast_path=fast_path, trusted_proxies=networks)
    asked = request(
        "GET", "/get-value?key=big", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    )
    async with start(settings) as server:
        body = '{"key":"big","value":"%s"}' % ("x" * 60_000)
        assert (await server.ask("POST", "/set-value", body)).status == 200
        with socket.socket() as slow, caplog.at_level(logging.WARNING, "tenantbase.web"):
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", server.port))
            await loop.sock_sendall(slow, asked * 200)  # more than the kernel takes
            await poll_async(lambda: "has read nothing" in caplog.text, "it is cut")
    named = "203.0.113.9 behind 127.0.0.1" in caplog.text
    assert named == (networks is LOOPBACK), caplog.text
    assert "6.6.6.6" not in caplog.text


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8,192.168.0.0/16"])
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_through_a_real_proxy(tmp_path: Path, proxy: str, trusted: str) -> None:
    """Each says http, which a client cannot change: pages of https may not write, if it counts."""
    environment = {"TENANTBASE_TRUSTED_PROXY": trusted}
    database = tmp_path / "x.db"
    with AppServer(database, "--memcached", "off", environment=environment) as server:
        directory = tmp_path / "proxy"
        directory.mkdir()
        front = (
            Nginx(directory, server.port, DEPLOYED)
            if proxy == "nginx"
            else HAProxy(directory, server.port)
        )
        with front:
            for origin in ("http", "https"):
                host = f"127.0.0.1:{front.port}"
                headers = {"Origin": f"{origin}://{host}", "X-Forwarded-Proto": "https"}
                answer = ask(front.port, "PUT", "/v1/values/k", b"x", headers)
                refused = trusted == "127.0.0.1" and origin == "https"
                assert (answer.status == 403) == refused, (origin, answer)
