"""For each planted bug that random faults find, the faults that expose it within half a minute.

They did not find the others in that time: these need several steps in one order. ``schedules.py``
stages them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_OLD_ITEMS: Final = ("cache-resurrect",)

HUNTS: Final[dict[str, Sequence[str]]] = {
    "ask": _OLD_ITEMS,
    "compare": _OLD_ITEMS,
    "any-key": _OLD_ITEMS,
    "snapshot-position": ("cache-delay",),
    "own-position": ("cache-delay",),
    "ack-after-standby": ("store-lose-unconfirmed",),
    "warning-is-no-ack": ("store-lose-unconfirmed",),
    "doubt-is-failure": ("net-cut-everywhere",),
    "join-floor": ("node-kill", "cache-resurrect"),
    "term-distance": ("store-promote-twice",),
    "expiry-now": ("cache-delay",),
}
