"""The context that the faults of a cluster run in, and where they leave their findings."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.cluster.cluster import Cluster, Connected
from tests.faults.excuses import Excuses
from tests.faults.referee import Referee

_SERVED_SECONDS: Final = 120.0
"""All nodes must write again within this time after a change of the primary or the standby, even on a
machine with a high load. The report has the times."""
_SAID_CHARACTERS: Final = 2_000


@dataclass
class Scene:
    """The scene of a fault.

    Attributes:
        log: called with lines for people.
        broken: broken promises, a line each.
        gaps: for each change of the primary or the standby, its name and the seconds until all nodes
            had written again.
        steps: how often nodes were stopped at each step, and how often other rare events happened.
    """

    cluster: Cluster
    excuses: Excuses
    referee: Referee
    log: Callable[[str], object]
    broken: list[str] = field(default_factory=list)
    gaps: list[tuple[str, float]] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def away(self, member: Connected) -> Iterator[None]:
        """Excuse all requests to a node."""
        with self.excuses.all_of(member.port):
            member.away += 1
            try:
                yield
            finally:
                member.away -= 1

    @contextmanager
    def all_away(self, members: Iterable[Connected]) -> Iterator[None]:
        """Excuse all requests to some nodes."""
        with ExitStack() as stack:
            for member in members:
                stack.enter_context(self.away(member))
            yield

    async def changed(self, name: str, change: Callable[[], None]) -> None:
        """Make a change, in a thread, and wait until the cluster serves again."""
        await asyncio.to_thread(change)
        seconds = await self.cluster.serves(_SERVED_SECONDS)
        if seconds is None:
            self.broken.append(f"{name}: not all nodes wrote within {_SERVED_SECONDS:g} s")
            for member in self.cluster.members:
                self.log(f"port {member.port} said: ... {member.node.stderr[-_SAID_CHARACTERS:]}")
        else:
            self.gaps.append((name, seconds))


Fault = Callable[[Scene, random.Random], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def repeating(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Repeat some work in the background. Afterwards, wait until its last run ends.

    It is not cancelled, because work in a thread would go on.
    """
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            await work()

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait([task])
    task.result()
