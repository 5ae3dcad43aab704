"""What happens when: drawn from a seed, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.faults import LANES


class Event(NamedTuple):
    """A fault and its time.

    Attributes:
        at: seconds from the beginning.
        seconds: how long it lasts.
        seed: for what is random in it.
    """

    at: float
    seconds: float
    fault: str
    seed: str


def drawn(seed: int, seconds: float, names: Sequence[str], longest: float) -> list[Event]:
    """The faults of a run, by time.

    Args:
        names: which faults may occur; a name that ends in ``-`` stands for all that begin so.
        longest: seconds a fault lasts at most.
    """
    events: list[Event] = []
    for lane, faults in LANES.items():
        chosen = [
            fault
            for fault in faults
            if any(
                fault == name or (name.endswith("-") and fault.startswith(name)) for name in names
            )
        ]
        chance = random.Random(f"{seed} {lane}")
        at = chance.uniform(0.2, 1.0)
        while chosen and at < seconds - 0.5:
            duration = min(0.1 * (longest / 0.1) ** chance.random(), seconds - at)
            events.append(Event(at, duration, chance.choice(chosen), f"{seed} {lane} {at}"))
            # Often soon after, sometimes after a long rest in which everything recovers.
            at += duration + chance.choice((0.2, 1.0, 4.0)) * chance.uniform(0.5, 1.5)
    return sorted(events)


def known(name: str) -> bool:
    """Whether a name stands for any fault."""
    return any(
        fault == name or (name.endswith("-") and fault.startswith(name))
        for faults in LANES.values()
        for fault in faults
    )
