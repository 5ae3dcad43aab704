"""``/metrics`` and ``/v1/stats`` of a real server with two workers: right for all of them, always."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tenantbase.client import Client
from tests.app_server import AppServer
from tests.servers import poll
from tests.wire import connect, receive, request

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
SHARED = {
    "tenantbase_store_question_duration_seconds",
    "tenantbase_store_question_keys_total",
    "tenantbase_store_position",
    "tenantbase_store_position_lag",
    "tenantbase_store_term",
    "tenantbase_store_confirmed_age_seconds",
    "tenantbase_store_sessions_lost_total",
    "tenantbase_store_doubts_total",
    "tenantbase_store_lock_wait_seconds",
    "tenantbase_store_oldest_xid_age",
}
"""Of a database that several machines share."""
REPLICATED = {"tenantbase_store_standby_present", "tenantbase_store_standby_info"}
"""Of one with a synchronous standby."""
GETS, LARGE, ABSENT, BAD = 40, 6, 7, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Two workers that have answered requests on both HTTP paths."""
    database = tmp_path_factory.mktemp("figures") / "x.db"
    with AppServer(database, "--workers", "2", "--metrics-per-tenant") as server:
        ask = server.ask
        ask("PUT", "/v1/tenants/acme", b'{"max_entries": 100}')
        assert ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        assert ask("PUT", "/v1/values/gone?ttl=0.001", b"x").status == 201
        for _ in range(GETS):  # each on a connection of its own, so that both workers have some
            assert ask("GET", "/get-value?key=k").status == 200
        for _ in range(ABSENT):
            assert ask("GET", "/get-value?key=absent").status == 404
        for _ in range(LARGE):  # through aiohttp
            assert ask("POST", "/get-values", b'{"keys": ["k", "absent"]}').status == 200
        for _ in range(BAD):
            assert ask("GET", "/nowhere").status == 404
        yield server


def scraped(server: AppServer) -> dict[str, Metric]:
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {each.name: each for each in text_string_to_metric_families(answer.body.decode())}


def value(server: AppServer, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels."""
    return sum(
        sample.value
        for family in scraped(server).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_requests_are_counted_by_route_method_and_status(server: AppServer) -> None:
    def count(**labels: str) -> float:
        return value(server, "tenantbase_http_requests_total", **labels)

    # A worker counts a request when it has sent the answer, and another one may be asked meanwhile.
    poll(
        lambda: (
            count(route="/get-value", status="200", method="GET") == GETS
            and count(route="/get-value", status="404") == ABSENT
            and count(route="/get-values", method="POST") == LARGE
            and count(route="unmatched") == BAD
        ),
        "all are counted",
    )
    (requests,) = (each for each in scraped(server).values() if each.name.endswith("http_requests"))
    failures = [each for each in requests.samples if each.labels["status"] in ("500", "503")]
    assert failures and not any(each.value for each in failures)
    durations = "tenantbase_http_request_duration_seconds"
    assert value(server, durations + "_count", route="/get-value") == GETS + ABSENT
    assert value(server, durations + "_bucket", route="/get-value", le="+Inf") == GETS + ABSENT
    assert 0 < value(server, durations + "_sum", route="/get-value") < 60


def test_what_lies_below_http_is_counted_where_it_happens(server: AppServer) -> None:
    reads = "tenantbase_cache_reads_total"
    assert value(server, reads) == GETS + ABSENT + 2 * LARGE
    assert value(server, reads, result="hit") >= GETS
    poll(lambda: value(server, "tenantbase_expired_total") == 1, "the entry is swept")
    commits = value(server, "tenantbase_commits_total")
    assert commits >= 2
    assert value(server, "tenantbase_commit_duration_seconds_count") == commits
    assert value(server, "tenantbase_commit_writes_sum") >= commits
    assert value(server, "tenantbase_entries") == 1
    assert value(server, "tenantbase_log_bytes") > 0
    assert value(server, "tenantbase_workers") == 2
    assert value(server, "tenantbase_cache_available") == 1
    assert value(server, "tenantbase_store_available") == 1
    assert value(server, "tenantbase_tenant_max_entries", tenant="acme") == 100
    assert value(server, "process_resident_memory_bytes") > 1 << 20
    poll(lambda: 0 < value(server, "tenantbase_event_loop_lag_seconds") < 60, "the lag is measured")


def test_gauges_are_those_of_all_workers(server: AppServer) -> None:
    opened = [connect(server.port) for _ in range(8)]
    try:
        for each in opened:
            each.sendall(request("GET", "/livez"))
            assert receive(each).status == 200
        assert value(server, "tenantbase_http_connections") >= len(opened)
        with connect(server.port) as watcher:
            watcher.sendall(request("GET", "/v1/watch"))
            received = b""
            while b"watching" not in received:
                received += watcher.recv(4096)
            assert value(server, "tenantbase_watchers") == 1
            assert server.ask("GET", "/v1/stats").json["watchers"] == 1
    finally:
        for each in opened:
            each.close()
    # The watch ends only with its next heartbeat.
    poll(lambda: value(server, "tenantbase_http_connections") <= 3, "they have ended")


def test_every_name_is_documented(server: AppServer) -> None:
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in scraped(server).values()
    }
    documented = set(re.findall(r"^\| `(\w+)", DOCUMENT, re.MULTILINE))
    assert names == documented - SHARED - REPLICATED
    assert all(name.startswith(("tenantbase_", "process_")) for name in names)


def test_stats(server: AppServer) -> None:
    poll(lambda: value(server, "tenantbase_entries") == 1, "the expired entry is swept")
    stats = server.ask("GET", "/v1/stats").json
    requests, cache, store = stats["requests"], stats["cache"], stats["store"]
    assert requests["total"] >= GETS + ABSENT + LARGE + BAD
    assert requests["per_second"] > 0 and requests["errors_per_second"] == 0
    assert 0 < requests["p50_ms"] <= requests["p99_ms"]
    assert cache["hits"] + cache["misses"] + cache["bypasses"] == GETS + ABSENT + 2 * LARGE
    assert cache["available"] is True and 0 < cache["hit_ratio"] <= 1
    assert store["entries"] == 1 and store["bytes"] == 2 and store["commits"] >= 2
    assert store["database_bytes"] > 0 and store["log_bytes"] > 0
    assert stats["workers"] == 2 and stats["connections"] >= 1 and stats["uptime_seconds"] > 0


async def test_the_client_has_the_same_figures(server: AppServer) -> None:
    async with Client(server.base_url) as client:
        stats = await client.stats()
    document = server.ask("GET", "/v1/stats").json
    shapes = {name: getattr(stats, name) for name in stats.__struct_fields__}
    assert shapes.keys() == document.keys()
    assert msgspec.json.decode(msgspec.json.encode(stats.cache)) == document["cache"]
    # The client's own request is counted when its answer has been sent.
    poll(
        lambda: server.ask("GET", "/v1/stats").json["requests"]["total"] > stats.requests.total,
        "it has been counted",
    )


def test_counters_never_go_backwards_when_a_worker_is_killed(server: AppServer) -> None:
    names = [
        "tenantbase_http_requests_total",
        "tenantbase_cache_reads_total",
        "tenantbase_commits_total",
        "process_cpu_seconds_total",
    ]
    before = {name: value(server, name) for name in names}
    for victim in server.workers:  # one after the other: none of the first ones is left
        restarts = value(server, "tenantbase_worker_restarts_total")
        os.kill(victim, signal.SIGKILL)

        def replaced(restarts: float = restarts) -> bool:
            try:
                for name in names:
                    now = value(server, name)
                    assert now >= before[name]
                    before[name] = now
                return (
                    value(server, "tenantbase_worker_restarts_total") == restarts + 1
                    and value(server, "tenantbase_workers") == 2
                )
            except OSError:  # its connection was that of the victim
                return False

        poll(replaced, "another worker has taken its place")
    assert value(server, "tenantbase_http_requests_total", route="/get-values") == LARGE
