"""Thousands of watchers, and a client whose sets they receive."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks.client import TIMEOUT_SECONDS, Connection, connect
from benchmarks.processes import BenchmarkError

_BEGIN: Final = b": watching\n"
_EVENT: Final = b"event: set\n"
_OTHER_EVENT: Final = (b"event: reset\n", b"event: delete\n", b"event: expire\n")
_WRITERS: Final = 16
# Until all watchers have all events. Beyond it, the service has not kept up for minutes.
_BEHIND_SECONDS: Final = 300.0


class _Watcher:
    """One connection, and the number of events that it has received."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.events = 0
        self._tail = b""

    def begin(self, request: bytes) -> None:
        """Watch; changes from now on are received."""
        self.socket.sendall(request)
        received = b""
        while _BEGIN not in received:
            if not (data := self.socket.recv(1 << 12)):
                raise BenchmarkError(f"a watch was refused: {received[:500]!r}")
            received += data

    def receive(self) -> int:
        """Receive what has arrived. Returns: the number of events in it.

        Raises:
            BenchmarkError: there is an event other than of a set, or the watch has ended.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise BenchmarkError("the server closed a watch")
        text = self._tail + data
        if any(other in text for other in _OTHER_EVENT):
            raise BenchmarkError(f"not the event of a set: {text[:500]!r}")
        self._tail = text[1 - len(_EVENT) :]  # too short for an event that was counted
        found = text.count(_EVENT)
        self.events += found
        return found


class Watchers:
    """Open watches. The block ends them.

    Attributes:
        sets: the latencies of all sets so far, in seconds, from the moment they were due.
        lates: how late each of them was sent.
    """

    def __init__(self, port: int, count: int, request: bytes) -> None:
        self.sets: list[float] = []
        self.lates: list[float] = []
        self._expected = 0  # events, for each watcher
        self._received = 0  # events, by all watchers
        with ExitStack() as stack:
            self._poll = stack.enter_context(select.epoll())
            self._watchers: dict[int, _Watcher] = {}
            for number in range(count):
                opened = stack.enter_context(connect(port, number))
                watcher = _Watcher(opened)
                watcher.begin(request)
                self._watchers[opened.fileno()] = watcher
                self._poll.register(opened, select.EPOLLIN)
            self._writers: dict[int, Connection] = {}
            for _ in range(_WRITERS):
                writer = Connection(port)
                stack.enter_context(writer.socket)
                self._writers[writer.socket.fileno()] = writer
                self._poll.register(writer.socket, select.EPOLLIN)
            self._free = deque(self._writers.values())
            self._stack = stack.pop_all()

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def send(self, requests: Sequence[bytes], events: int, rate: float | None = None) -> float:
        """Send requests that make events, and wait until all watchers have received them.

        Args:
            events: that each request makes.
            rate: requests per second, at even intervals. None: each once all watchers have the events
                of the last.

        Returns: the seconds from the moment when the last request was due until all watchers had
            received everything.

        Raises:
            BenchmarkError: a watcher did not receive each event once, or a set failed.
        """
        due = begun = time.perf_counter()
        for number, request in enumerate(requests):
            due = time.perf_counter() if rate is None else begun + number / rate
            while (wait := due - time.perf_counter()) > 0 or not self._free:
                # The kernel wakes sleepers up to a millisecond late.
                self._receive(wait - 0.002 if self._free else TIMEOUT_SECONDS)
            self.lates.append(time.perf_counter() - due)
            self._free.popleft().send(request, due)
            self._expected += events
            if rate is None:
                self._wait()
        self._wait()
        return time.perf_counter() - due

    def _wait(self) -> None:
        """Wait until all watchers have all events, and all sets are answered."""
        wanted = self._expected * len(self._watchers)
        deadline = time.perf_counter() + _BEHIND_SECONDS
        while self._received < wanted or len(self._free) < len(self._writers):
            if time.perf_counter() > deadline:
                raise BenchmarkError(
                    f"{self._received:,} of {wanted:,} events arrived within {_BEHIND_SECONDS:g} s"
                )
            self._receive(1.0)
        wrong = {each.events for each in self._watchers.values()} - {self._expected}
        if wrong:
            raise BenchmarkError(f"watchers received {wrong} events instead of {self._expected}")

    def _receive(self, seconds: float) -> None:
        """Receive what arrives; wait for something at most so long."""
        for descriptor, _event in self._poll.poll(max(0.0, seconds)):
            if (watcher := self._watchers.get(descriptor)) is not None:
                self._received += watcher.receive()
            elif (writer := self._writers[descriptor]).receive(b"200"):
                self.sets.append(time.perf_counter() - writer.due)
                self._free.append(writer)
