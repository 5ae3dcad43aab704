"""Tokens and tenants with several workers and servers on one database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tenantbase.access import TokenScope
from tenantbase.database import Database
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tests.app_server import READY_SECONDS, AppServer, clean_environment

Result = TypeVar("Result")
SECONDS = READY_SECONDS
CONNECTIONS = 20  # enough to reach every worker


def administer(database: Path, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do something on the database, beside its servers."""

    async def run() -> Result:
        async with open_database(Config(database=database)) as opened:
            return await work(opened)

    return asyncio.run(run())


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def settled(server: AppServer, status: int, headers: dict[str, str]) -> bool:
    """Whether every worker comes to answer with this status, before a deadline."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = {server.ask("GET", "/v1/whoami", None, headers).status for _ in range(CONNECTIONS)}
        if found == {status}:
            return True
        time.sleep(0.05)
    return False


def test_every_worker_of_every_server_learns_of_tokens(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with AppServer(database, "--workers", "2") as one, AppServer(database, "--workers", "2") as two:
        body = b'{"name": "ops", "scope": "admin"}'
        admin = bearer(one.ask("POST", "/v1/tokens", body).json["token"])
        assert settled(one, 401, {}) and settled(two, 401, {})
        assert settled(one, 200, admin) and settled(two, 200, admin)
        body = b'{"name": "app", "scope": "read", "ttl": 3600}'
        made = two.ask("POST", "/v1/tokens", body, admin).json
        app = bearer(made["token"])
        assert settled(one, 200, app) and settled(two, 200, app)
        assert one.ask("DELETE", f"/v1/tokens/{made['id']}", None, admin).status == 204
        assert settled(one, 401, app) and settled(two, 401, app)
        assert made["token"] not in one.stderr + two.stderr
        administer(database, lambda opened: opened.disable_tokens())
        assert settled(one, 200, {}) and settled(two, 200, {})


def test_a_rate_is_of_all_workers_together(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "3") as server:
        limit = b'{"max_requests_per_second": 5}'
        assert server.ask("PUT", "/v1/tenants/a", limit).status == 201
        headers = {"X-Tenant": "a"}
        deadline = time.monotonic() + SECONDS
        while {server.ask("GET", "/v1/whoami", None, headers).status for _ in range(40)} > {404}:
            assert time.monotonic() < deadline  # some workers do not know the tenant so far
        time.sleep(1.1)  # until the bucket is full again
        began = time.monotonic()
        statuses = [server.ask("GET", "/get-value?key=k", None, headers).status for _ in range(60)]
        admitted = statuses.count(404)
        assert set(statuses) == {404, 429}
        assert 5 <= admitted <= 5 * (1 + time.monotonic() - began) + 1


def test_other_machines_are_served_only_by_a_closed_database(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    command = [sys.executable, "-m", "tenantbase", "serve", "--host", "0.0.0.0", "--port", "0"]
    refused = subprocess.run(
        [*command, "--database", str(database)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
    )
    assert refused.returncode != 0 and refused.stdout == ""
    assert "--host: 0.0.0.0 is reachable from other machines" in refused.stderr
    assert "tenantbase token create" in refused.stderr and "--insecure" in refused.stderr
    _, secret = administer(database, lambda opened: opened.create_token("n", TokenScope.ADMIN))
    with AppServer(database, "--host", "0.0.0.0") as server:
        assert server.ask("GET", "/v1/whoami", None, bearer(secret)).status == 200
        administer(database, lambda opened: opened.disable_tokens())
        assert settled(server, 401, {}) and settled(server, 401, bearer(secret))
        assert server.ask("GET", "/health-check").status == 200
