"""For each planted bug, the faults that expose it within a minute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_OLD_ITEMS: Final = ("cache-resurrect",)

HUNTS: Final[dict[str, Sequence[str]]] = {
    "ask": _OLD_ITEMS,
    "ask-after-begin": ("cache-delay", "net-delay"),
    "confirm-index": ("store-cut-off-primary", "cache-resurrect"),
    "confirm-row": ("store-lose-unconfirmed", "store-cut-off-primary"),
    "compare": _OLD_ITEMS,
    "any-key": _OLD_ITEMS,
    "snapshot-position": ("cache-delay",),
    "own-position": ("cache-delay",),
    "ack-after-standby": ("store-lose-unconfirmed",),
    "warning-is-no-ack": ("store-lose-unconfirmed",),
    "token": ("net-stall-answers", "net-delay"),
    "doubt-is-failure": ("net-cut-everywhere",),
    "outcome-confirmed": ("store-lose-unconfirmed", "net-cut-everywhere"),
    "join-floor": ("node-kill", "cache-resurrect"),
}
