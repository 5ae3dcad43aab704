"""The schedule of faults, determined by a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from tests.faults.faults import LANES
from tests.faults.vitals import REST

# Only these faults affect the first server. In the last third of a run nothing kills it, so that it
# runs long enough to show whether its memory grows.
_SPARE_NOBODY: Final = ("process-restart-all", "process-kill-at-step")
_SPARED: Final = 2 / 3
# In seconds. Faults of time excuse slowness, so they need pauses in which latency is judged.
_REST: Final = (0.2, 1.0, 4.0)
_RESTS: Final = {"time": (1.0, 4.0, 16.0)}


class Event(NamedTuple):
    """A fault and its time.

    Attributes:
        at: seconds from the beginning.
        seconds: how long it lasts.
        seed: of its random choices.
    """

    at: float
    seconds: float
    fault: str
    seed: str


def drawn(
    seed: int,
    seconds: float,
    names: Sequence[str],
    longest: float,
    lanes: Mapping[str, Collection[str]] = LANES,
) -> list[Event]:
    """The faults of a run, by time. There is some rest at its end.

    Args:
        names: which faults may occur; a name that ends in ``-`` stands for all faults with this
            prefix.
        longest: the longest duration of a fault, in seconds.
        lanes: the faults that there are.
    """
    events: list[Event] = []
    end = seconds - min(REST, seconds / 6)
    for lane, faults in lanes.items():
        chosen = [fault for fault in faults if any(_stands_for(name, fault) for name in names)]
        sparing = [fault for fault in chosen if fault not in _SPARE_NOBODY]
        chance = random.Random(f"{seed} {lane}")
        at = chance.uniform(0.2, 1.0)
        while at < end - 0.5 and (possible := chosen if at < seconds * _SPARED else sparing):
            duration = min(0.1 * (longest / 0.1) ** chance.random(), end - at)
            events.append(Event(at, duration, chance.choice(possible), f"{seed} {lane} {at}"))
            # The next one often follows soon, sometimes after a long rest in which everything
            # recovers.
            at += duration + chance.choice(_RESTS.get(lane, _REST)) * chance.uniform(0.5, 1.5)
    return sorted(events)


def known(name: str, lanes: Mapping[str, Collection[str]] = LANES) -> bool:
    """Whether a name stands for any fault."""
    return any(_stands_for(name, fault) for faults in lanes.values() for fault in faults)


def _stands_for(name: str, fault: str) -> bool:
    return fault == name or (name.endswith("-") and fault.startswith(name))
