"""How much of a server's budgets a tenant uses, and how much it may use beside other tenants.

A tenant may use three times as much as it leaves free. So one tenant takes at most three quarters,
two that want everything take three sevenths each, and there is always some left for another.

While several tenants use the server, each also has a *window*, which limits how many of its plain
requests are begun at a time. Requests that begin together are parsed in the same turn of the event
loop, committed in the same group and answered in the same turn, so a request of another tenant would
wait for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Protocol

_TIMES_FREE: Final = 3

WINDOW: Final = 32
"""How many plain requests a tenant may have begun while others use the server. Parsing, committing and
answering this many takes about half a millisecond each; bulk reads of small entries take longer."""

_SHARED_SECONDS: Final = 1.0  # how long another tenant is expected to send more requests


class Waiting(Protocol):
    """A connection whose next request waits until its tenant's window has room."""

    def resume(self) -> None:
        """Begin the request, unless the connection is gone."""


class TenantUse:
    """What a tenant uses of one server. Belongs to one event loop.

    Attributes:
        requests: in flight.
        unread_bytes: of answers that its clients have yet to read.
        begun: plain requests that have begun and are not answered.
        waiting: connections whose next plain request waits for the window, in order of arrival.
        resuming: whether those for which there is room are about to be resumed.
    """

    __slots__ = ("requests", "unread_bytes", "begun", "waiting", "resuming")

    def __init__(self) -> None:
        self.requests = 0
        self.unread_bytes = 0
        self.begun = 0
        self.waiting: deque[Waiting] = deque()
        self.resuming = False


class Tenants:
    """Knows whether several tenants use a server at the same time, and keeps their windows.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._last: TenantUse | None = None  # of the last request
        self._shared_until = 0.0  # by the monotonic clock

    @property
    def shared(self) -> bool:
        """Whether there have been requests of several tenants lately."""
        return time.monotonic() < self._shared_until

    def note(self, use: TenantUse) -> None:
        """A request of this tenant begins."""
        if use is not self._last:
            if self._last is not None:
                self._shared_until = time.monotonic() + _SHARED_SECONDS
            self._last = use

    def begin(self, use: TenantUse) -> None:
        """A plain request of this tenant begins."""
        use.requests += 1
        use.begun += 1
        if use is not self._last:
            self.note(use)

    def end(self, use: TenantUse) -> None:
        """A plain request of this tenant is answered."""
        use.requests -= 1
        use.begun -= 1
        if use.waiting and not use.resuming:
            # Later, because this one may be among many that are answered now.
            use.resuming = True
            asyncio.get_running_loop().call_soon(self._resume, use)

    def _resume(self, use: TenantUse) -> None:
        use.resuming = False
        while use.waiting and (use.begun < WINDOW or not self.shared):
            use.waiting.popleft().resume()


def leaves_enough(used: int, size: int, free: float) -> bool:
    """Whether a tenant that uses ``used`` may use ``size`` more, which would leave ``free``.

    A tenant that uses nothing yet may take whatever fits.
    """
    return not used or used + size <= _TIMES_FREE * free
