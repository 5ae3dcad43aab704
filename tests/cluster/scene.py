"""The context that the faults of a cluster run in, and where they leave their findings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

from tests.cluster.cluster import Cluster, Connected
from tests.faults.excuses import Excuses


@dataclass
class Scene:
    """The scene of a fault.

    Attributes:
        broken: broken promises, a line each.
        gaps: for each change of the primary or the standby, its name and the seconds until all nodes
            had written again.
    """

    cluster: Cluster
    excuses: Excuses
    broken: list[str] = field(default_factory=list)
    gaps: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def away(self, member: Connected) -> Iterator[None]:
        """Excuse all requests to a node."""
        with self.excuses.all_of(member.port):
            member.away += 1
            try:
                yield
            finally:
                member.away -= 1


Fault = Callable[[Scene, random.Random], AbstractAsyncContextManager[None]]
