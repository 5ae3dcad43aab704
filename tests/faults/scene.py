"""The context that faults run in, and where they leave their findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.faults.cluster import Cluster
from tests.faults.excuses import Excuses
from tests.faults.referee import Referee


@dataclass
class Scene:
    """The scene of a fault.

    Attributes:
        keys: the keys that clients currently use.
        referee: receives the operations of a fault's own clients.
        others: the referees of the other tenants, which what happens to servers concerns as well.
        broken: broken promises, a line each.
        done: counts of each fault's observations.
    """

    cluster: Cluster
    excuses: Excuses
    keys: Callable[[], dict[str, list[str]]]
    referee: Referee
    others: Sequence[Referee] = ()
    broken: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
