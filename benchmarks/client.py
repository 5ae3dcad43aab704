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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Final

from benchmarks.dialect import Answer, Exchange
from benchmarks.processes import BenchmarkError

CONNECTIONS: Final = 64
TIMEOUT_SECONDS: Final = 20.0

_LENGTH: Final = b"content-length:"
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"  # JSON has no line break of its own before it

# A source address has 28,000 ports (ip_local_port_range), fewer while some wait to be free again.
_CONNECTIONS_OF_ADDRESS: Final = 5_000


@dataclass(frozen=True)
class Driven:
    """The result of a load.

    Attributes:
        latencies: of every request in seconds, from the moment it was due to its last byte, in the
            order of the answers.
        numbers: the place in the schedule of each of these requests, counted from 0.
        seconds: the time from the start to the last answer.
        late: the measurement's error: how late requests were sent although a connection was free,
            in seconds, at the 99th percentile.
    """

    latencies: array[float]
    numbers: array[int]
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


def connect(port: int, number: int = 0) -> socket.socket:
    """Open a connection.

    Args:
        number: how many the run has opened before this one. Several thousand share a source address.
    """
    more = number // _CONNECTIONS_OF_ADDRESS
    source = (f"127.0.0.{1 + more}", 0) if more else None
    opened = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS, source)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


class Connection:
    """A connection, and the answer it is receiving.

    Args:
        number: see `connect`.

    Attributes:
        due, request: when the last request was due, and its place in the schedule.
    """

    def __init__(self, port: int, number: int = 0) -> None:
        self.socket = connect(port, number)
        self.due = 0.0
        self.request = 0
        self._received = b""
        self._missing = -1
        self._chunked = False

    def send(self, request: bytes, due: float = 0.0, number: int = 0) -> None:
        """Send a request, after the answer to the last one."""
        self.due = due
        self.request = number
        self.socket.sendall(request)

    def receive(self, status: bytes) -> bool:
        """Receive what has arrived. Returns: whether the answer is complete.

        Raises:
            BenchmarkError: it has another status, or is malformed.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise BenchmarkError("the server closed a connection")
        if self._chunked:
            return self._ends_chunks(data)
        if self._missing < 0:
            self._received += data
            head, end, body = self._received.partition(b"\r\n\r\n")
            if not end:
                return False
            if head[9:12] != status:
                raise BenchmarkError(f"not a {status.decode()}: {self._received[:500]!r}")
            lower = head.lower()
            if b"transfer-encoding: chunked" in lower:
                self._chunked = True
                self._received = b"\r\n"  # so that an empty body ends like the others
                return self._ends_chunks(body)
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

    def _ends_chunks(self, data: bytes) -> bool:
        """Whether a chunked answer is complete with this part of it."""
        self._received = (self._received + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        if self._received != _LAST_CHUNK:
            return False
        self._received = b""
        self._chunked = False
        return True


def drive(
    port: int,
    requests: Sequence[bytes],
    status: int = 200,
    *,
    rate: float | None = None,
    seconds: float | None = None,
    dues: Sequence[float] | None = None,
    connections: int = CONNECTIONS,
    when_open: Callable[[], object] | None = None,
) -> Driven:
    """Make requests, each over the connection that has been free for longest. At a high rate this
    needs a core to itself.

    Args:
        rate: requests per second, at even intervals, whatever the server does: a request that has
            to wait for a free connection counts with its wait. None: each as soon as a connection
            is free.
        seconds: how long, repeating the requests; None: each of them once.
        dues: instead of ``rate`` and ``seconds``: when each request is due, in seconds from the
            start, in ascending order.
        when_open: called once all connections are open.

    Raises:
        BenchmarkError: an answer has another status, or does not arrive.
    """
    total = len(requests) if rate is None or seconds is None else int(rate * seconds)
    wanted = b"%d" % status
    latencies, numbers, lates = array("d"), array("L"), array("d")
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        opened = {}
        for number in range(connections):
            connection = Connection(port, number)
            stack.callback(connection.socket.close)
            poll.register(connection.socket, select.EPOLLIN)
            opened[connection.socket.fileno()] = connection
        if when_open is not None:
            when_open()
        free = deque(opened.values())
        sent = 0
        begun = progress = time.perf_counter()

        def next_due() -> float | None:
            """When the next request is due; None: at once."""
            if dues is not None:
                return begun + dues[sent]
            return None if rate is None else begun + sent / rate

        while len(latencies) < total:
            now = time.perf_counter()
            while free and sent < total:
                due = next_due() or now
                if due > now:
                    break
                if len(free) > 1:  # count only requests that did not wait for a connection
                    lates.append(now - due)
                free.popleft().send(requests[sent % len(requests)], due, sent)
                sent += 1
                now = time.perf_counter()
            next_one = next_due() if sent < total else None
            # The kernel wakes sleepers up to a millisecond late.
            wait = 1.0 if next_one is None else next_one - now - 0.002
            for descriptor, _event in poll.poll(max(0.0, wait)):
                connection = opened[descriptor]
                if connection.receive(wanted):
                    progress = time.perf_counter()
                    latencies.append(progress - connection.due)
                    numbers.append(connection.request)
                    free.append(connection)
            if now - progress > TIMEOUT_SECONDS and sent > len(latencies):
                raise BenchmarkError(f"no answer within {TIMEOUT_SECONDS:g} s")
    return Driven(latencies, numbers, progress - begun, percentile(lates, 0.99))


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """The percentiles that the tables show."""
    return {
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "p99.9": percentile(latencies, 0.999),
    }
