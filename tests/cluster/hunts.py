"""For each planted bug, the faults that expose it within a minute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_OLD_ITEMS: Final = ("cache-resurrect",)

HUNTS: Final[dict[str, Sequence[str]]] = {
    "ask": _OLD_ITEMS,
    "ask-after-begin": ("cache-delay", "net-delay"),
    "confirm-index": ("store-stop-primary", "store-cut-off-primary"),
    "confirm-row": ("store-restart-primary", "store-cut-off-primary"),
    "compare": _OLD_ITEMS,
    "any-key": _OLD_ITEMS,
    "snapshot-position": ("cache-delay",),
    "own-position": ("cache-delay",),
    "ack-after-standby": ("store-promote", "store-kill-primary"),
    "warning-is-no-ack": ("store-cancel-waits",),
    "token": ("net-stall-answers", "net-delay"),
    "doubt-is-failure": ("net-cut-everywhere",),
    "outcome-confirmed": ("store-cut-off-primary", "net-cut-everywhere"),
    "join-floor": ("node-kill", "cache-resurrect"),
}
