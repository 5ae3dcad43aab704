"""What faults find, and where they leave what they have to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.cluster import Cluster
from tests.faults.excuses import Excuses
from tests.faults.referee import Referee


@dataclass
class Scene:
    """Where faults take place.

    Attributes:
        keys: the keys that clients work on now.
        referee: is told what a client of the fault's own has seen.
        broken: promises that did not hold, a line each.
        done: how often each fault was brought about, and what came of it.
    """

    cluster: Cluster
    excuses: Excuses
    keys: Callable[[], dict[str, list[str]]]
    referee: Referee
    broken: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
