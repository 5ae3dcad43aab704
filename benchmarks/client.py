"""The harness's own client: checks answers, loads data, and sends requests on a schedule.

It uses plain sockets and epoll: at tens of thousands of requests per second, an event loop's own
cost would dominate the measurement.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Final

from benchmarks.dialect import Answer, Exchange
from benchmarks.processes import BenchmarkError

CONNECTIONS: Final = 64
TIMEOUT_SECONDS: Final = 20.0

_LENGTH: Final = b"content-length:"


@dataclass(frozen=True)
class Driven:
    """The result of a load.

    Attributes:
        latencies: of every request in seconds, from the moment it was due to its last byte.
        seconds: the time from the start to the last answer.
        late: the measurement's error: how late requests were sent although a connection was free,
            in seconds, at the 99th percentile.
    """

    latencies: array[float]
    seconds: float
    late: float


def check(port: int, exchanges: Sequence[Exchange]) -> float:
    """Make these requests one by one, and check the answers.

    Returns: the average size of an answer's body, in bytes.

    Raises:
        BenchmarkError: an answer is wrong, or a tenth of them come from an unexpected source.
    """
    size = elsewhere = 0
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        for exchange in exchanges:
            connection.sendall(exchange.request)
            response = HTTPResponse(connection)
            response.begin()
            fields = {name.lower(): text for name, text in response.getheaders()}
            answer = Answer(response.status, fields, response.read())
            if answer.status != exchange.status or not exchange.right(answer):
                head = exchange.request[:300].decode()
                raise BenchmarkError(f"wrong answer to\n{head}\n{str(answer)[:1000]}")
            size += len(answer.body)
            elsewhere += exchange.source not in (None, fields.get("x-cache"))
    if elsewhere > len(exchanges) / 10:
        raise BenchmarkError(f"{elsewhere} of {len(exchanges)} answers: not {exchanges[0].source}")
    return size / len(exchanges)


class _Connection:
    """A connection, and the answer it is receiving."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""
        self._missing = -1

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def receive(self, status: bytes) -> bool:
        """Receive what has arrived. Returns: whether the answer is complete.

        Raises:
            BenchmarkError: it has another status, or is malformed.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise BenchmarkError("the server closed a connection")
        if self._missing < 0:
            self._received += data
            head, end, body = self._received.partition(b"\r\n\r\n")
            if not end:
                return False
            if head[9:12] != status:
                raise BenchmarkError(f"not a {status.decode()}: {self._received[:500]!r}")
            lower = head.lower()
            start = lower.index(_LENGTH) + len(_LENGTH)
            self._missing = int(lower[start:].partition(b"\r\n")[0]) - len(body)
            self._received = b""
        else:
            self._missing -= len(data)
        if self._missing < 0:
            raise BenchmarkError(f"more than one answer to one request: {data[:500]!r}")
        if self._missing:
            return False
        self._missing = -1
        return True


def drive(
    port: int,
    requests: Sequence[bytes],
    status: int = 200,
    *,
    rate: float | None = None,
    seconds: float | None = None,
) -> Driven:
    """Make requests over 64 connections. At a high rate this needs a core to itself.

    Args:
        rate: requests per second, at even intervals, whatever the server does: a request that has
            to wait for a free connection counts with its wait. None: each as soon as a connection
            is free.
        seconds: how long, repeating the requests; None: each of them once.

    Raises:
        BenchmarkError: an answer has another status, or does not arrive.
    """
    total = len(requests) if rate is None or seconds is None else int(rate * seconds)
    wanted = b"%d" % status
    latencies, lates = array("d"), array("d")
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        connections = {}
        for _ in range(CONNECTIONS):
            connection = _Connection(port)
            stack.callback(connection.socket.close)
            poll.register(connection.socket, select.EPOLLIN)
            connections[connection.socket.fileno()] = connection
        free = deque(connections.values())
        sent = 0
        begun = progress = time.perf_counter()
        while len(latencies) < total:
            now = time.perf_counter()
            while free and sent < total:
                due = now if rate is None else begun + sent / rate
                if due > now:
                    break
                if len(free) > 1:  # count only requests that did not wait for a connection
                    lates.append(now - due)
                free.popleft().send(requests[sent % len(requests)], due)
                sent += 1
                now = time.perf_counter()
            # The kernel wakes sleepers up to a millisecond late.
            wait = begun + sent / rate - now - 0.002 if rate and sent < total else 1.0
            for descriptor, _event in poll.poll(max(0.0, wait)):
                connection = connections[descriptor]
                if connection.receive(wanted):
                    progress = time.perf_counter()
                    latencies.append(progress - connection.due)
                    free.append(connection)
            if now - progress > TIMEOUT_SECONDS and sent > len(latencies):
                raise BenchmarkError(f"no answer within {TIMEOUT_SECONDS:g} s")
    return Driven(latencies, progress - begun, percentile(lates, 0.99))


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
