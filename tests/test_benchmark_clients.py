"""The clients of the benchmarks: what they send, and what they take for an answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.client import Connection, check, drive
from benchmarks.dialect import Tenantbase
from benchmarks.processes import BenchmarkError
from benchmarks.watchers import Watchers
from benchmarks.work import FEW
from tests.app_server import AppServer

WATCHERS = 3


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """That of a server with a few entries."""
    with AppServer(tmp_path / "x.db", "--memcached", "off") as server:
        found = int(server.base_url.rpartition(":")[2])
        check(found, [Tenantbase(found, "BYPASS").set_many(FEW.entries())])
        yield found


def pieces_of(answer: bytes, status: bytes = b"200") -> list[bool]:
    """What a connection says after each byte of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(listener.getsockname()[1])
        server, _ = listener.accept()
        with connection.socket, server:
            said = []
            for number in range(len(answer)):
                server.sendall(answer[number : number + 1])
                said.append(connection.receive(status))
            return said


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b'Transfer-Encoding: chunked\r\n\r\n4\r\n"0"\n\r\n2\r\n\n\n\r\n0\r\n\r\n',
    ],
    ids=["length", "chunk", "no chunk", "line breaks in chunks"],
)
def test_an_answer_ends_with_its_last_byte(rest: bytes) -> None:
    said = pieces_of(b"HTTP/1.1 200 OK\r\n" + rest)
    assert said == [False] * (len(said) - 1) + [True]


def test_a_wrong_status_ends_a_load(port: int) -> None:
    dialect = Tenantbase(port, "BYPASS")
    requests = [dialect.get("key-0000001", "").request, dialect.get("absent", None).request]
    with pytest.raises(BenchmarkError, match="not a 200: b'HTTP/1.1 404"):
        drive(port, requests, dues=[0.0, 0.01])


def test_requests_of_a_schedule_are_told_apart(port: int) -> None:
    dialect = Tenantbase(port, "BYPASS")
    sent = [dialect.list_prefix("key-", FEW.entries()), dialect.delete_prefix("key-", FEW.keys)]
    opened: list[str] = []
    driven = drive(
        port,
        [each.request for each in sent],
        dues=[0.0, 0.3],
        connections=2,
        when_open=lambda: opened.append("all"),
    )
    assert opened == ["all"]
    assert sorted(driven.numbers) == [0, 1]
    assert driven.seconds >= 0.3
    check(port, [dialect.count("key-", 0)])


def test_connections_beyond_the_ports_of_an_address_have_another(port: int) -> None:
    with Connection(port, 4_999).socket as one, Connection(port, 5_000).socket as other:
        assert one.getsockname()[0] == "127.0.0.1"
        assert other.getsockname()[0] == "127.0.0.2"


def test_watchers_receive_each_event_once(port: int) -> None:
    dialect = Tenantbase(port, "BYPASS")
    sets = [dialect.set(*entry).request for entry in FEW.entries().items()][:20]
    with Watchers(port, WATCHERS, dialect.watch("key-")) as watchers:
        watchers.send(sets[:2], 1)
        assert watchers.send(sets, 1, rate=200.0) >= 0.0
        watchers.send([dialect.set_many(FEW.entries()).request], FEW.keys)
        assert len(watchers.sets) == 2 + 20 + 1
        with pytest.raises(BenchmarkError, match="not the event of a set"):
            watchers.send([dialect.delete_prefix("key-", FEW.keys).request], 1)


def test_an_event_too_many_is_noticed(port: int) -> None:
    dialect = Tenantbase(port, "BYPASS")
    with Watchers(port, WATCHERS, dialect.watch("key-")) as watchers:
        # Two events of one request, of which one is expected: the second comes with the first.
        request = dialect.set_many({"key-0000001": "a", "key-0000002": "b"}).request
        with pytest.raises(BenchmarkError, match="instead of 1"):
            watchers.send([request], 1)
