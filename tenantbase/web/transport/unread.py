"""The memory budget for answers that clients have yet to read, of all connections together.

Bytes that the kernel takes at once are not charged. All others are charged until the client has
read them: those in a connection's write buffer, and the values from which an answer is rendered
piece by piece. When the budget is used up, the clients that have read nothing for longest are cut
off, and large answers wait until there is room, without holding their values meanwhile. A client
that reads, however slowly, is never cut off here; small answers never wait.

The large answers of one tenant take at most a share of the budget (``tenant_use.py``), and do not hold
up those of other tenants while they wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
from operator import attrgetter
from typing import Final

from tenantbase.web.problems import OverLimit
from tenantbase.web.transport.progress import progress
from tenantbase.web.transport.tenant_use import TenantUse, leaves_enough

log = logging.getLogger("tenantbase.web")

STALLED_SECONDS: Final = 0.5
"""A client that has read nothing of its answer for this long may be cut off to make room for
others."""

SMALL_ANSWER_BYTES: Final = 64 << 10
"""Answers up to this size never wait."""

WAIT_SECONDS: Final = 5.0
"""How long a large answer waits for room, before its request is refused."""

HIGH_WATER_BYTES: Final = 8 << 10
"""A connection with this many unread bytes is charged for them, and its next requests wait."""

_LOOK_SECONDS: Final = 0.05  # the interval between checks of all clients


class Unread:
    """Counts the bytes held for clients that have yet to read them. Belongs to one event loop.

    Attributes:
        limit: the most bytes.
        used: bytes held now. Small answers, and the last large one, may exceed the limit.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self.used = 0
        self._shares: set[Share] = set()
        self._waiting: dict[asyncio.Future[None], tuple[Share, int]] = {}  # in order of arrival
        self._timer: asyncio.TimerHandle | None = None
        self._looked = -math.inf

    @property
    def waiting(self) -> int:
        """How many large answers wait for room."""
        return len(self._waiting)

    def has_room(self, size: int, use: TenantUse | None) -> bool:
        """Whether this many more bytes may be held, after cutting off stalled clients if necessary.

        Args:
            use: of the tenant that the answer is for.

        A single answer may be larger than the limit. Answers that already wait go first.
        """
        if self._waiting:
            return False
        if not self._fits(size, use):
            self._cut_stalled(size)
        return self._fits(size, use)

    def exceeded(self) -> OverLimit:
        """The error of an answer for which there is no room."""
        return OverLimit(
            f"the answers that clients have yet to read would exceed {self.limit:,} bytes;"
            " try again later",
            "max-inflight-bytes",
        )

    def _fits(self, size: int, use: TenantUse | None) -> bool:
        free = self.limit - self.used - size
        if free < 0:
            return not self.used
        return use is None or leaves_enough(use.unread_bytes, size, free)

    def _charge(self, share: Share, size: int) -> None:
        if size and not share.size:
            self._shares.add(share)
            share.mark = progress(share.transport)
            share.since = asyncio.get_running_loop().time()
        elif not size:
            self._shares.discard(share)
        freed = size < share.size
        self._hold(share, size)
        if freed:
            self._admit()
        elif self.used > self.limit:
            self._cut_stalled(0)

    def _hold(self, share: Share, size: int) -> None:
        self.used += size - share.size
        if share.use is not None:
            share.use.unread_bytes += size - share.size
        share.size = size

    async def _reserve(self, share: Share, size: int, seconds: float | None) -> None:
        if self.has_room(size, share.use):
            share.charge(size)
            return
        room = asyncio.get_running_loop().create_future()
        self._waiting[room] = share, size
        self._admit()
        self._look_later()
        try:
            async with asyncio.timeout(seconds):
                await room
        except TimeoutError:
            raise self.exceeded() from None
        finally:
            if self._waiting.pop(room, None):
                self._admit()

    def _admit(self) -> None:
        """Let waiting answers continue, in order, as far as there is room.

        Those of a tenant that has used up its share let those of others pass.
        """
        passed = set[TenantUse | None]()
        for room, (share, size) in list(self._waiting.items()):
            if room.done():
                del self._waiting[room]
            elif not self._fits(size, None):
                return
            elif share.use not in passed and self._fits(size, share.use):
                del self._waiting[room]
                room.set_result(None)
                share.charge(size)
            else:
                passed.add(share.use)

    def _look_later(self) -> None:
        """Check the clients while answers wait: some become stalled as time passes."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(2 * _LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self._admit()
        if self._waiting:
            _, size = next(iter(self._waiting.values()))
            self._cut_stalled(size)
            self._admit()
            self._look_later()

    def _cut_stalled(self, needed: int) -> None:
        """Cut off clients that read nothing, longest first, to make room."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        stalled = [share for share in self._shares if share.stalled(now)]
        stalled.sort(key=attrgetter("since"))
        cut = 0
        for share in stalled:
            if self.used + needed <= self.limit:
                break
            # Don't use _charge: the caller admits the waiting answers, or does so after freeing
            # more.
            self._shares.discard(share)
            self._hold(share, 0)
            share.transport.abort()
            cut += 1
        if cut:
            log.warning(
                "%d connections were cut: their clients had read nothing for %g s, and unread"
                " answers had used up the memory for them",
                cut,
                STALLED_SECONDS,
            )


class Share:
    """The share of the budget that one connection, or one answer, holds.

    Attributes:
        size: bytes.
        transport: the connection to the client.
        use: of the tenant that it counts for; only an empty share may change it.
        mark, since: the client's progress, and when it was first seen.
    """

    __slots__ = ("size", "transport", "use", "mark", "since", "_unread")

    def __init__(
        self, unread: Unread, transport: asyncio.Transport, use: TenantUse | None = None
    ) -> None:
        self.size = 0
        self.transport = transport
        self.use = use
        self.mark: int | None = None
        self.since = 0.0
        self._unread = unread

    def charge(self, size: int) -> None:
        """Change the share to this size, whether or not there is room."""
        if size != self.size:
            self._unread._charge(self, size)

    def keep(self, size: int) -> bool:
        """Change the share to this size if there is room. Returns: whether it did."""
        if size > self.size and not self._unread.has_room(size - self.size, self.use):
            return False
        self.charge(size)
        return True

    async def reserve(self, size: int, seconds: float | None) -> None:
        """Change the share to this size once there is room; until then, it is 0.

        Args:
            seconds: how long to wait; None: as long as it takes.

        Raises:
            OverLimit: there was no room in time.
        """
        self.release()
        await self._unread._reserve(self, size, seconds)

    def release(self) -> None:
        """Hold nothing."""
        self.charge(0)

    def stalled(self, now: float) -> bool:
        """Whether the client has read nothing for a while although there is something to read."""
        if not self.transport.get_write_buffer_size():
            self.mark, self.since = None, now
            return False
        mark = progress(self.transport)
        if mark != self.mark:
            self.mark, self.since = mark, now
            return False
        return now - self.since >= STALLED_SECONDS
