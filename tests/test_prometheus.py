"""A real Prometheus scrapes a real server, and every query of the dashboard and of the alerts finds
data there.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app_server import AppServer
from tests.interfaces.postgres.cluster import replicated
from tests.prometheus import DEPLOYED, ROOT, Prometheus
from tests.servers import MemcachedProcess, poll
from tests.wire import receive, request

pytestmark = pytest.mark.integration  # the last test of the module ends the servers

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "tenantbase.json").read_text())
_THRESHOLD = re.compile(r" (?:==|>|<) -?[0-9.e]+")


def expressions(node: Any) -> Iterator[str]:
    """Every query in the dashboard, as Grafana would send it."""
    if isinstance(node, dict):
        if "expr" in node:
            yield node["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m")
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from expressions(each)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a server with some traffic of each kind, and a node of a cluster."""
    directory = tmp_path_factory.mktemp("prometheus")
    options = ("--workers", "2", "--metrics-per-tenant")
    with (
        AppServer(directory / "x.db", *options) as server,
        replicated() as (primary, _),
        MemcachedProcess() as memcached,
        AppServer(
            primary.url(),
            "--memcached",
            memcached.address,
            environment={"TENANTBASE_STORE_TIMEOUT": "30"},
        ) as node,
    ):
        limits = b'{"max_entries": 10000, "max_bytes": 1000000}'
        assert server.ask("PUT", "/v1/tenants/default", limits).status == 200
        made = server.ask("POST", "/v1/tokens", b'{"name": "p", "scope": "metrics"}')
        token = made.json["token"]
        with Prometheus(directory, server.port, token, node.port) as prometheus:
            admin = server.ask("POST", "/v1/tokens", b"{}")  # refused: the server is closed now
            assert admin.status in (401, 403)
            traffic(server)
            counted = 'count_over_time(tenantbase_http_requests_total{status="501"}[1m]) > 1'
            poll(lambda: bool(prometheus.query(counted)), "the traffic is scraped")
            yield prometheus


def traffic(server: AppServer) -> None:
    """Requests without a token, of which one is refused for its coding."""
    assert server.ask("GET", "/get-value?key=k").status == 401
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        coded = {"Transfer-Encoding": "gzip, chunked", "Host": f"127.0.0.1:{server.port}"}
        connection.sendall(request("POST", "/set-value", headers=coded))
        assert receive(connection, "POST").status == 501


def test_every_query_of_the_dashboard_finds_data(prometheus: Prometheus) -> None:
    queries = [*expressions(DASHBOARD)]
    assert len(queries) > 30
    for query in queries:  # of which some need several scrapes
        poll(lambda: bool(prometheus.query(query)), f"{query} finds data")  # noqa: B023


def test_every_alert_is_evaluated_and_would_find_data(prometheus: Prometheus) -> None:
    (group,) = prometheus.api("rules")["groups"]
    rules = group["rules"]
    assert len(rules) > 10
    poll(
        lambda: all(
            rule["health"] == "ok" for rule in prometheus.api("rules")["groups"][0]["rules"]
        ),
        "every rule is evaluated",
    )
    for rule in rules:
        without_threshold = _THRESHOLD.sub("", rule["query"])
        assert without_threshold != rule["query"]
        poll(
            lambda: bool(prometheus.query(without_threshold)),  # noqa: B023
            f"{rule['query']} finds data",
        )
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_an_idle_healthy_server_wakes_nobody(prometheus: Prometheus) -> None:
    # One request in two was refused above, on purpose.
    expected = {"TenantbaseErrors"}
    pages = {
        alert["labels"]["alertname"]
        for alert in prometheus.api("alerts")["alerts"]
        if alert["labels"]["severity"] == "page"
    }
    assert pages <= expected


def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "these tests need the program promtool"
    for what, name in (("rules", "tenantbase-alerts.yml"), ("config", "prometheus.yml")):
        subprocess.run([promtool, "check", what, name], cwd=DEPLOYED, check=True)


def test_the_dashboard_is_valid() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one in panels:
        assert one["gridPos"]["x"] + one["gridPos"]["w"] <= 24
        for other in panels:
            if one is not other:
                assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
