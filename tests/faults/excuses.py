"""Excuses: when requests may fail or be slow, because of faults in the server itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.faults.history import NEVER

GRACE: Final = 2_000_000_000  # nanoseconds that a server needs to recover


@dataclass(eq=False)
class _Window:
    begin: int
    end: int
    port: int | None  # None: of every server
    writes_only: bool
    slow_only: bool

    def concerns(self, begin: int, end: int, port: int) -> bool:
        overlaps = self.begin <= end and begin <= self.end + GRACE
        return overlaps and self.port in (None, port)


class Excuses:
    """Windows of time, in nanoseconds of the monotonic clock."""

    def __init__(self) -> None:
        self._open: list[_Window] = []
        self._closed: list[_Window] = []  # in the order of their ends

    @contextmanager
    def all_of(self, *ports: int) -> Iterator[None]:
        """Excuse all requests to these servers."""
        with ExitStack() as stack:
            for port in ports:
                stack.enter_context(self._window(port))
            yield

    @contextmanager
    def writes(self) -> Iterator[None]:
        """Excuse every write, because the write lock may be held."""
        with self._window(None, writes_only=True):
            yield

    @contextmanager
    def slowness(self) -> Iterator[None]:
        """Excuse slow requests, but no failures."""
        with self._window(None, slow_only=True):
            yield

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Excuse everything."""
        with self._window(None):
            yield

    def failure(self, begin: int, end: int, port: int, *, write: bool) -> bool:
        """Whether a request from ``begin`` to ``end`` may have failed."""
        return any(
            not window.slow_only and (write or not window.writes_only)
            for window in self._concerning(begin, end, port)
        )

    def delay(self, begin: int, end: int, port: int, *, write: bool) -> bool:
        """Whether a request from ``begin`` to ``end`` may have taken long."""
        return any(write or not window.writes_only for window in self._concerning(begin, end, port))

    def _concerning(self, begin: int, end: int, port: int) -> Iterator[_Window]:
        yield from (window for window in self._open if window.concerns(begin, end, port))
        for window in reversed(self._closed):
            if window.end + GRACE < begin:
                return  # so have all before it, which keeps queries about recent times fast
            if window.concerns(begin, end, port):
                yield window

    @contextmanager
    def _window(
        self, port: int | None, *, writes_only: bool = False, slow_only: bool = False
    ) -> Iterator[None]:
        window = _Window(time.monotonic_ns(), NEVER, port, writes_only, slow_only)
        self._open.append(window)
        try:
            yield
        finally:
            window.end = time.monotonic_ns()
            self._open.remove(window)
            self._closed.append(window)
