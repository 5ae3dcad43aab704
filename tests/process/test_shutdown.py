"""Every request sent is answered when the server stops under load."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import wire
from tests.app_server import READY_SECONDS, AppServer
from tests.servers import poll

WORKERS = [pytest.param((), id="one"), pytest.param(("--workers", "2"), id="two")]
LANES = [pytest.param((), id="fast"), pytest.param(("--no-fast-path",), id="general")]


class Client(threading.Thread):
    """Sends one request after the other until the port is closed."""

    def __init__(self, server: AppServer, kind: str, number: int, counts: Counter[str]) -> None:
        super().__init__(daemon=True)
        self._port = server.port
        self._kind = kind
        self._number = number
        self._counts = counts
        self.faults: list[str] = []
        self.started = threading.Event()

    def run(self) -> None:
        connection: socket.socket | None = None
        n = 0
        while True:
            if connection is None:
                try:
                    connection = wire.connect(self._port)
                except ConnectionRefusedError:
                    return
                except OSError as error:
                    self.faults.append(f"connect: {error!r}")
                    return
            elif select.select([connection], [], [], 0)[0]:
                # The server closed the connection before anything was sent, as a connection pool
                # may find.
                connection.close()
                connection = None
                continue
            n += 1
            try:
                closes = self._exchange(connection, n)
            except Exception as error:
                self.faults.append(f"{self._kind}, request {n}: {error!r}")
                closes = True
            self.started.set()
            self._counts[self._kind] += 1
            if closes or self._kind != "kept":
                connection.close()
                connection = None

    def _exchange(self, connection: socket.socket, n: int) -> bool:
        """Returns: whether the connection ends."""
        if self._kind == "write":
            body = b'{"key": "%d/%d", "value": %d}' % (self._number, n, n)
            data = wire.request("POST", "/set-value", body)
            connection.sendall(data[: -len(body)])
            connection.sendall(body)
        else:
            connection.sendall(wire.request("GET", "/get-value?key=k"))
        answer = wire.receive(connection)
        if answer.status != 200:
            raise AssertionError(f"status {answer.status}")
        return answer.headers.get("Connection") == "close"


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("fast_path", LANES)
def test_every_request_is_answered(
    tmp_path: Path, workers: tuple[str, ...], fast_path: tuple[str, ...]
) -> None:
    with AppServer(tmp_path / "x.db", *workers, *fast_path) as server:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        for _ in range(3):
            counts: Counter[str] = Counter()
            kinds = ["fresh"] * 6 + ["kept"] * 5 + ["write"] * 5
            clients = [Client(server, kind, n, counts) for n, kind in enumerate(kinds)]
            for client in clients:
                client.start()
            for client in clients:
                assert client.started.wait(READY_SECONDS)
            time.sleep(0.2)
            assert server.stop() == 0
            for client in clients:
                client.join(READY_SECONDS)
            assert [fault for client in clients for fault in client.faults] == []
            assert set(counts) == {"fresh", "kept", "write"}
            server.start()


@pytest.mark.parametrize("fast_path", LANES)
@pytest.mark.parametrize("size", [100, 10_000], ids=["small", "large"])
def test_an_incomplete_body_is_waited_for(
    tmp_path: Path, fast_path: tuple[str, ...], size: int
) -> None:
    body = b'{"key": "slow", "value": "%b"}' % (b"x" * size)
    head = b"POST /set-value HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with AppServer(tmp_path / "x.db", *fast_path) as server:
        with wire.connect(server.port) as connection:
            connection.sendall(head + body[:20])
            time.sleep(0.1)
            server.signal()
            poll(lambda: drains(server), "it drains, or has closed the port")
            time.sleep(0.8)
            connection.sendall(body[20:])
            answer = wire.receive(connection)
            assert answer.status == 200 and answer.headers["Connection"] == "close"
        assert server.wait() == 0
        server.start()
        assert server.ask("GET", "/get-value?key=slow").status == 200


def drains(server: AppServer) -> bool:
    try:
        return server.ask("GET", "/health-check").status == 503
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize("workers", WORKERS)
def test_the_port_stays_open_for_the_drain_delay(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with AppServer(tmp_path / "x.db", "--drain-delay", "5", *workers) as server:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        before = time.monotonic()
        server.signal()
        poll(lambda: server.ask("GET", "/health-check").status == 503, "health says so")
        while time.monotonic() < before + 1:
            answer = server.ask("GET", "/get-value?key=k")
            assert answer.status == 200 and answer.headers["Connection"] == "close"
            assert server.ask("POST", "/set-value", b'{"key": "k", "value": 2}').status == 200
        assert server.wait() == 0
        assert time.monotonic() - before >= 5
        assert server.stderr == ""


@pytest.mark.parametrize("fast_path", LANES)
def test_pipelined_requests_do_not_destroy_an_answer(
    tmp_path: Path, fast_path: tuple[str, ...]
) -> None:
    """Each request is answered or not read; no earlier answer is lost to a reset."""
    with AppServer(tmp_path / "x.db", "--drain-delay", "5", *fast_path) as server:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 1}').status == 200
        server.signal()
        poll(lambda: server.ask("GET", "/health-check").status == 503, "it drains")
        for _ in range(20):
            with wire.connect(server.port) as connection:
                for _ in range(20):
                    connection.sendall(
                        b"GET /get-value?key=k HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n"
                        % (b"y" * 5000)
                    )
                time.sleep(0.02)
                data = b""
                while piece := connection.recv(65_536):  # no reset
                    data += piece
                assert data.startswith(b"HTTP/1.1 200 OK\r\n") and b'"value":1' in data
        assert server.wait() == 0
