"""``serve`` and commands on a database that several machines share: a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import AppServer, clean_environment
from tests.command import command
from tests.interfaces.postgres.cluster import replicated
from tests.postgres import PostgresProcess
from tests.process.test_figures import REPLICATED, SHARED, scraped, value
from tests.servers import poll

UNREPLICATED = {"TENANTBASE_STORE_UNREPLICATED": "1"}
SLOW = {"TENANTBASE_STORE_TIMEOUT": "30", "TENANTBASE_READ_TIMEOUT": "30"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as process:
        yield process


def test_two_nodes_and_commands_see_each_others_writes(postgres: PostgresProcess) -> None:
    environment = clean_environment(**UNREPLICATED, **SLOW)
    url = postgres.url()

    def run(*args: str, stdin: bytes = b"") -> bytes:
        done = command(*args, "--database", url, stdin=stdin, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = {**UNREPLICATED, **SLOW}
    with (
        AppServer(url, "--workers", "2", environment=options) as one,
        AppServer(url, environment=options) as two,
    ):
        for at, server in enumerate((one, two, one, two)):
            assert server.ask("PUT", "/v1/values/k", b"%d" % at).status in (200, 201)
            for reader in (one, one, two):
                assert reader.ask("GET", "/v1/values/k").body == b"%d" % at
        run("set", "k", "5")
        assert one.ask("GET", "/get-value?key=k").body.startswith(b'{"key":"k","value":5,')
        store = json.loads(run("stats"))["store"]
        assert (store["entries"], store["shared"]["primary"]) == (1, postgres.host)
        shared = two.ask("GET", "/v1/stats").json["store"]["shared"]
        assert (shared["primary"], shared["standby"]) == (postgres.host, None)
        assert shared["term"] == 1 and shared["position"] > 0 and shared["questions"] > 0
        assert not any(shared["sessions_lost"].values()) and not any(shared["doubts"].values())
        exported = run("export")
        run("delete", "k")
        assert two.ask("GET", "/v1/values/k").status == 404
        run("import", stdin=exported)
        assert two.ask("GET", "/v1/values/k").body == b"5"
        samples = {f"{name}_total" for name in scraped(two)} | set(scraped(two))
        assert SHARED <= samples and not REPLICATED & samples
        assert value(two, "tenantbase_store_question_keys_total") > 0
        assert value(two, "tenantbase_store_term") == 1
        assert value(two, "tenantbase_store_oldest_xid_age") > 0
        commits = value(one, "tenantbase_commits_total")
        assert commits > 0
        assert value(one, "tenantbase_commit_duration_seconds_count") == commits
        assert value(one, "tenantbase_commit_writes_count") == commits
        assert value(one, "tenantbase_store_lock_wait_seconds_count") >= commits


def test_server_without_its_database_is_unavailable_until_it_is_back() -> None:
    options = {**UNREPLICATED, "TENANTBASE_STORE_TIMEOUT": "3", "TENANTBASE_READ_TIMEOUT": "3"}
    with PostgresProcess() as own, AppServer(own.url(), environment=options) as server:
        assert server.ask("PUT", "/v1/values/k", b"1").status == 201
        assert server.ask("GET", "/v1/values/k").status == 200
        own.kill()
        refused = server.ask("GET", "/v1/values/k")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert server.ask("GET", "/health-check").status == 503
        assert value(server, "tenantbase_store_sessions_lost_total") == 1
        own.start()
        poll(lambda: server.ask("GET", "/health-check").status == 200, "it has joined again")
        assert server.ask("GET", "/v1/values/k").body == b"1"
        assert server.stop() == 0


def test_the_standby_is_shown() -> None:
    options = {"TENANTBASE_STORE_TIMEOUT": "3", "TENANTBASE_READ_TIMEOUT": "3"}
    with (
        replicated() as (primary, standby),
        AppServer(primary.url(), environment=options) as server,
    ):
        present = "tenantbase_store_standby_present"
        poll(lambda: value(server, present) == 1, "it is there")
        assert value(server, "tenantbase_store_standby_info", standby="standby") == 1
        shared = server.ask("GET", "/v1/stats").json["store"]["shared"]
        assert (shared["standby"], shared["standby_present"]) == ("standby", True)
        assert shared["standby_lag_bytes"] >= 0
        standby.kill()
        poll(lambda: value(server, present) == 0, "it is away")
        standby.start()
        poll(lambda: value(server, present) == 1, "it is back")


@pytest.mark.parametrize(
    "args",
    [("backup", "-"), ("restore", "x.bak"), ("check",), ("compact",)],
    ids=lambda args: args[0],
)
def test_command_for_a_file_says_so(args: tuple[str, ...], tmp_path: Path) -> None:
    done = command(*args, "--database", "postgresql://u:secret@127.0.0.1/db", cwd=tmp_path)
    assert done.returncode == 2
    assert b"needs a database file" in done.stderr
    assert b"secret" not in done.stderr


def test_wrong_url_is_not_repeated() -> None:
    done = command("serve", "--database", "postgresql://u:secret@127.0.0.1/")
    assert (done.returncode, b"secret" in done.stderr) == (2, False)
    assert b"must name the database" in done.stderr


def test_server_that_does_not_answer_is_named() -> None:
    with PostgresProcess() as stopped:
        stopped.kill()
        done = command("serve", "--port", "0", "--database", stopped.url())
    assert done.returncode == 1
    assert stopped.host.encode() in done.stderr


def test_server_without_a_standby_needs_an_option(postgres: PostgresProcess) -> None:
    done = command("get", "k", "--database", postgres.url())
    assert done.returncode == 1
    assert b"--store-unreplicated" in done.stderr
