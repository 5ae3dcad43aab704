"""A real server at the limits of its process: descriptors, and workers that do not exit."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tenantbase.web.transport.lingering import LINGER_SECONDS
from tests import wire
from tests.app_server import AppServer
from tests.servers import poll
from tests.wire import Answer

MIB = 1 << 20


@contextmanager
def soft_limit(count: int) -> Iterator[int]:
    """Set the soft limit for processes started in the block. Yields: the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_soft_limit_of_open_files_is_raised(tmp_path: Path, workers: str) -> None:
    with soft_limit(256) as hard:
        with AppServer(tmp_path / "x.db", "--workers", workers) as server:
            for pid in (server.pid, *children(server.pid)):
                assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)


def children(pid: int) -> list[int]:
    """Its children that are workers, not its memcached."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [int(each) for each in found if Path(f"/proc/{each}/cmdline").read_bytes() == command]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lowest_free_descriptor(pid: int) -> int:
    """The limit of open files at which an idle process can open no more. Waits until it is idle."""
    seen: set[int] = set()
    since = time.monotonic()
    while time.monotonic() - since < 2 * LINGER_SECONDS:
        now = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)
    return min(set(range(len(seen) + 1)) - seen)


def exchange(connection: socket.socket) -> Answer:
    """A cached or uncached read on a connection."""
    connection.sendall(wire.request("GET", "/get-value?key=k"))
    return wire.receive(connection)


def test_without_descriptors_it_refuses_serves_and_recovers(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server, ExitStack() as stack:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        (worker,) = server.workers

        def connect() -> socket.socket:
            return stack.enter_context(wire.connect(server.port))

        kept = [connect() for _ in range(4)]
        for each in kept:
            assert exchange(each).status == 200
        limit = lowest_free_descriptor(worker)
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, hard))

        before = processor_seconds(worker)
        for _ in range(5):
            answer = wire.receive(connect())
            assert answer.status == 503 and answer.json["limit"] == "max-connections"
        for each in kept:
            assert exchange(each).status == 200
        # The process does not spin, although connections that it cannot accept are waiting.
        waiting = [connect() for _ in range(20)]
        time.sleep(0.5)
        assert processor_seconds(worker) - before < 0.4
        for each in kept:
            assert exchange(each).status == 200
        assert server.stderr.count("no more connections can be accepted") == 1

        resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
        for each in waiting:
            each.close()
        poll(lambda: server.ask("GET", "/get-value?key=k").status == 200, "it accepts again")
        assert len(server.stderr.splitlines()) == 1
        for each in kept:
            assert exchange(each).status == 200


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def readable(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that have received an answer, or have been closed."""
    polling = select.poll()
    for connection in connections:
        polling.register(connection, select.POLLIN)
    ready = {descriptor for descriptor, _ in polling.poll(0)}
    return [connection for connection in connections if connection.fileno() in ready]


def status(connection: socket.socket) -> int | None:
    """Of the answer; None: the connection was reset."""
    connection.setblocking(True)
    try:
        return wire.receive(connection).status
    except ConnectionResetError:
        return None


@pytest.mark.parametrize("chunked", [False, True])
def test_a_thousand_bodies_at_once_take_no_more_than_the_budget(
    tmp_path: Path, chunked: bool
) -> None:
    """They arrive while the worker is stopped, so it receives all of them in one turn."""
    clients, part = 1000, 60_000
    limits = ("--max-request-bytes", "2097152", "--max-inflight-bytes", str(4 * MIB))
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000"
    head = b"POST /set-value HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % length
    with AppServer(tmp_path / "x.db", *limits) as server, ExitStack() as stack:
        (worker,) = server.workers
        connections = []
        for _ in range(clients):
            connection = stack.enter_context(wire.connect(server.port))
            connection.sendall(head + (b"f0000\r\n{" if chunked else b"{"))
            connection.setblocking(False)
            connections.append(connection)
        assert server.ask("GET", "/livez").status == 200
        before = resident_bytes(worker)
        os.kill(worker, signal.SIGSTOP)
        for connection in connections:
            assert connection.send(bytes(part)) == part
        os.kill(worker, signal.SIGCONT)
        assert server.ask("GET", "/livez").status == 200
        grown = resident_bytes(worker) - before
        assert grown < clients * part * 3 / 4
        poll(lambda: len(readable(connections)) > clients * 3 / 4, "most are refused")
        assert {status(each) for each in readable(connections)} == {None if chunked else 503}
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200


def test_workers_that_do_not_end_are_killed(tmp_path: Path) -> None:
    options = ("--workers", "2", "--drain-timeout", "0.1", "--write-timeout", "0.1")
    with AppServer(tmp_path / "x.db", *options) as server:
        stopped, *_ = children(server.pid)
        os.kill(stopped, signal.SIGSTOP)
        server.signal()
        assert server.wait(30) == 1
        assert "killing 1 workers that did not exit in time" in server.stderr
        assert not Path(f"/proc/{stopped}").exists()
