"""Background tasks: failures are logged and work restarts; every task of the package is covered."""

from __future__ import annotations

import ast
import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import tenantbase
from tenantbase import background
from tenantbase.background import ended, keep_running
from tests import wire
from tests.app_server import AppServer
from tests.servers import MemcachedProcess, poll, poll_async

PACKAGE = Path(tenantbase.__file__).parent
# Tasks that are not kept running, by module, and how their failures become visible.
OTHER_TASKS = {
    "offload/runner": "parsing by a child process: awaited, so its failure becomes the answer",
    "background": "the mechanism itself",
    "coherence/batcher": "a batch: its failure is raised to the callers of its items",
    "coherence/reading": "asking memcached while the tags are asked for: awaited where it is started",
    "coherence/filler": "storing in memcached: all of them are awaited where they are started",
    "interfaces/sqlite/store": "opening, writing, closing: awaited; a checkpoint that fails is"
    " made again after the next commit, and asyncio logs it",
    "interfaces/sqlite/prefix_counter": "closing a connection: waited for, but a hanging one is left,"
    " and asyncio logs what fails",
    "interfaces/sqlite/readers": "a connection opened in place of one that hangs: the next look opens"
    " another, and asyncio logs it",
    "interfaces/postgres/store": "opening: awaited; reads and writes: awaited even by a cancelled caller",
    "interfaces/postgres/sessions": "joining: its failure is raised to all that wait for a session",
    "interfaces/postgres/confirmation": "asking primary and standby at once: both are awaited there",
    "web/transport/acceptor": "setting up a connection: if it fails, the client is disconnected",
    "web/fast_path/answering": "health: its failure becomes the answer",
    "web/fast_path/pages": "reading a list: its failure becomes the answer",
    "web/handlers/health": "the check of the store: its failure becomes the answer",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(background, "_LONGEST_PAUSE_SECONDS", 0.004)


class Work:
    """Work that fails with the given errors, then runs until it is cancelled."""

    def __init__(self, *failures: BaseException) -> None:
        self.runs = 0
        self.works = False
        self._failures = list(failures)

    async def __call__(self) -> None:
        self.runs += 1
        await asyncio.sleep(0)
        if self._failures:
            raise self._failures.pop(0)
        self.works = True
        await asyncio.Event().wait()


async def test_failures_are_logged_and_restarted_with_back_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(ValueError("one"), KeyError("two"), MemoryError(), RuntimeError("four"))
    task = keep_running(work, "mill")
    await poll_async(lambda: work.works, "it works in the end")
    pauses = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses == [0.001, 0.002, 0.004, 0.004]
    assert caplog.messages[0].startswith("the mill failed; it is restarted in ")
    assert "mill" in caplog.records[0].msg, "each task has a limit of lines of its own"
    assert "ValueError: one" in caplog.text, "with a traceback"
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_cancelling_what_it_awaits_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(asyncio.CancelledError())
    task = keep_running(work, "mill")
    await poll_async(lambda: work.works, "it works in the end")
    assert len(caplog.records) == 1
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_it_can_be_cancelled_between_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_FIRST_PAUSE_SECONDS", 3600)
    work = Work(ValueError())
    task = keep_running(work, "mill")
    await poll_async(lambda: work.runs == 1, "it has failed")
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()


async def test_finished_work_is_not_repeated() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1

    await keep_running(work, "mill")
    assert runs == 1


# Starts the service with a bug in one of its background tasks: the first run fails.
FAILING = """if True:
    import sys
    from tenantbase.changes import feed
    from tenantbase.interfaces.memcached import client as memcached_client
    from tenantbase.main import main
    from tenantbase.process import sweeper
    from tenantbase.web.fast_path import tending
    MISTAKES = {
        "process/sweeper": (sweeper, "_sweep"),
        "changes/feed": (feed.Feed, "_read"),
        "probe": (memcached_client, "probe"),
        "watchdog": (tending.OpenConnections, "watch"),
    }
    where, name = MISTAKES[sys.argv.pop(1)]
    right = getattr(where, name)
    mistakes = [ZeroDivisionError("a mistake")]
    async def wrong(*args):
        if mistakes:
            raise mistakes.pop()
        return await right(*args)
    setattr(where, name, wrong)
    main()
"""


class FailingServer(AppServer):
    def __init__(self, database: Path, failing: str, *options: str) -> None:
        super().__init__(database, *options)
        self.program = ("-c", FAILING, failing)


def restarted_once(server: AppServer) -> bool:
    said = server.stderr
    return said.count("ZeroDivisionError: a mistake") == said.count("; it is restarted in ") == 1


def test_the_sweeper_continues_after_a_bug(tmp_path: Path) -> None:
    with FailingServer(tmp_path / "x.db", "process/sweeper") as server:
        server.ask("POST", "/set-value", b'{"key": "k", "value": 1, "ttl": 0.01}')
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            count = "SELECT count(*) FROM entries"
            poll(lambda: connection.execute(count).fetchone() == (0,), "the row is removed")
        assert restarted_once(server)


def test_watchers_get_their_events_after_a_mistake(tmp_path: Path) -> None:
    with FailingServer(tmp_path / "x.db", "changes/feed") as server:
        with wire.connect(server.port) as watcher:
            watcher.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with watcher.makefile("rb") as stream:
                while stream.readline() != b": watching\n":
                    pass
                server.ask("POST", "/set-value", b'{"key": "k", "value": 1}')
                while stream.readline() != b"event: set\n":
                    pass
        assert restarted_once(server)


def test_memcached_is_found_again_after_a_mistake(tmp_path: Path) -> None:
    with MemcachedProcess() as memcached:
        options = ("--memcached", memcached.address)
        with FailingServer(tmp_path / "x.db", "probe", *options) as server:
            server.ask("POST", "/set-value", b'{"key": "k", "value": 1}')
            memcached.restart()
            memcached.kill()
            server.ask("GET", "/get-value?key=k")
            memcached.start()

            def hit() -> bool:
                return server.ask("GET", "/get-value?key=k").headers["X-Cache"] == "HIT"

            poll(hit, "hits are back")
            assert restarted_once(server)


def test_idle_connections_are_closed_after_a_mistake(tmp_path: Path) -> None:
    options = ("--keepalive-timeout", "0.5")
    with FailingServer(tmp_path / "x.db", "watchdog", *options) as server:
        with wire.connect(server.port) as idle:
            assert idle.recv(1) == b""
        assert restarted_once(server)


async def test_a_task_ends_before_its_cancelled_caller() -> None:
    """After Ctrl-C, the event loop ends with its caller."""
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    task = asyncio.create_task(work())
    caller = asyncio.create_task(ended(task))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert task.result() == "done"
    assert await ended(task) == "done"


def test_every_task_is_kept_running_or_has_a_reason() -> None:
    starters = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}
    }
    assert starters - {"client"} == OTHER_TASKS.keys()
