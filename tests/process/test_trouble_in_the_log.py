"""One trouble, two lines; and slow requests, with what they waited for. With real faults."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import wire
from tests.app_server import AppServer
from tests.servers import MemcachedProcess, poll

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
OPTIONS = ("--slow-seconds", "0.2", "--cache-timeout", "1", "--write-timeout", "20")


@pytest.fixture(scope="module")
def memcached() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as memcached:
        yield memcached


@pytest.fixture(scope="module")
def server(
    memcached: MemcachedProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AppServer]:
    database = tmp_path_factory.mktemp("log") / "x.db"
    options = ("--memcached", memcached.address, "--access-log", "slow", *OPTIONS)
    with AppServer(database, *options) as server:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        yield server


def lines(server: AppServer, logger: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in server.stderr.splitlines()]
    return [line for line in told if line["logger"] == logger]


def slow(server: AppServer, id: str) -> dict[str, Any]:
    """The line of a slow request with this id."""

    def found() -> list[dict[str, Any]]:
        return [line for line in lines(server, "tenantbase.access") if line["request_id"] == id]

    poll(lambda: len(found()) == 1, "it is in the log")
    return found()[0]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
def test_slow_requests_say_what_they_waited_for(
    server: AppServer, memcached: MemcachedProcess, fast: bool
) -> None:
    name = "fast" if fast else "general"
    fields = {"X-Request-ID": f"read-{name}", "traceparent": TRACEPARENT}
    if not fast:
        fields["If-None-Match"] = '"0"'
    memcached.pause()
    assert server.ask("GET", "/get-value?key=k", headers=fields).status == 200
    memcached.resume()
    line = slow(server, f"read-{name}")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/get-value", 200)
    assert (line["message"], line["trace_id"]) == ("slow request", TRACE_ID)
    assert line["waited_ms"]["memcached"] >= 900 and "database" in line["waited_ms"]
    poll(lambda: server.ask("GET", "/health-check").json["cache"] == "ok", "memcached is back")

    fields = {"X-Request-ID": f"write-{name}"}
    if not fast:
        fields["If-Match"] = "*"
    body = b'{"key": "k", "value": 1}'
    with closing(sqlite3.connect(server.database)) as foreign, ThreadPoolExecutor() as threads:
        foreign.execute("BEGIN IMMEDIATE")
        asked = threads.submit(server.ask, "POST", "/set-value", body, fields)
        time.sleep(3)  # so that it is slow, however late it comes
        foreign.rollback()
        assert asked.result().status == 200
    line = slow(server, f"write-{name}")
    assert line["route"] == "/set-value" and line["waited_ms"]["commit"] >= 400


def test_memcached_away_has_two_lines(server: AppServer, memcached: MemcachedProcess) -> None:
    before = len(lines(server, "tenantbase.memcache"))
    memcached.kill()
    for number in range(300):
        # aiohttp answers every other request, among them the first one, which has an id.
        fields = None if number % 2 else {"If-None-Match": '"0"', "X-Request-ID": f"n{number}"}
        assert server.ask("GET", "/get-value?key=k", headers=fields).status == 200
    poll(lambda: len(lines(server, "tenantbase.memcache")) > before, "it is in the log")
    memcached.start()
    poll(lambda: server.ask("GET", "/health-check").json["cache"] == "ok", "memcached is back")
    poll(lambda: len(lines(server, "tenantbase.memcache")) == before + 2, "the log says so")
    down, back = lines(server, "tenantbase.memcache")[before:]
    assert "is down" in down["message"]
    assert "is back; the trouble was met" in back["message"]
    assert all("request_id" not in line for line in (down, back)), "no single request's trouble"


def test_clients_beyond_a_limit_have_one_line(tmp_path: Path) -> None:
    options = ("--memcached", "off", "--max-connections", "1")
    with AppServer(tmp_path / "x.db", *options) as server:
        with wire.connect(server.port):
            answers = [server.ask("GET", "/livez") for _ in range(50)]
        assert {answer.status for answer in answers} <= {200, 503}
        assert sum(answer.status == 503 for answer in answers) > 40
        ids = [answer.headers["X-Request-ID"] for answer in answers if answer.status == 503]
        assert len(set(ids)) == len(ids), "each has its own id"
        (line,) = lines(server, "tenantbase.web")
        assert line["message"] == "1 connections are open; further ones are refused"
