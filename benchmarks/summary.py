"""Summarises the records of a run: medians over its rounds, ratios, goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Record = dict[str, Any]

OURS: Final = "tenantbase"

# Above this busy share, the load generator may have been the bottleneck.
BUSY: Final = 0.97
# Above this share of the server's core, other programs distorted the result.
DISTURBED: Final = 0.03
# Above this share of a latency, the load generator itself may have caused it.
_LATE: Final = 0.5


@dataclass(frozen=True)
class Goal:
    """A goal: the ratio of tenantbase to a peer, on the small values."""

    work: str
    peer: str
    wanted: float


GOALS: Final = (
    Goal("cached-get", "constant", 1.4),
    Goal("cached-get", "webdis", 1.0),
    Goal("cached-get", "naive", 4.0),
    Goal("cold-get", "constant", 0.8),
    Goal("durable-set", "constant", 0.6),
    Goal("durable-set", "webdis", 1.0),
    Goal("bulk-get", "webdis", 0.4),
)
GOAL_P99_SECONDS: Final = 0.005


def warning(others: float, open_loops: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Lines that say so if a result is distorted.

    Args:
        others: the share of both cores that other programs used.
        open_loops: the ``p99`` of each, and how ``late`` the load generator itself was.
    """
    lines = []
    if others > DISTURBED:
        text = f"**Other programs used up to {others:.0%} of both cores: measure again.**"
        lines += ["", text]
    if any(each["late"] > each["p99"] * _LATE for each in open_loops):
        text = (
            "**The load generator was late itself, which makes latencies longer: measure again.**"
        )
        lines += ["", text]
    return lines


class Loads:
    """The records of `rounds.measure`."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def lines(self) -> list[tuple[str, str]]:
        """Each pair of data and workload, in the order of measurement."""
        return list(dict.fromkeys((each["data"], each["work"]) for each in self._records))

    def peers(self) -> list[str]:
        """The services that took part, in order."""
        return list(dict.fromkeys(each["peer"] for each in self._records))

    def median(self, data: str, work: str, peer: str, field: str = "rate") -> float | None:
        """The median over the rounds; None if it was not measured."""
        found = [each[field] for each in self._of(data, work, peer) if field in each]
        return statistics.median(found) if found else None

    def ratios(self, data: str, work: str, peer: str) -> list[float]:
        """The ratios of tenantbase to a peer, in each round in which both were measured."""
        theirs = {each["round"]: each["rate"] for each in self._of(data, work, peer)}
        ours = self._of(data, work, OURS)
        return sorted(
            each["rate"] / theirs[each["round"]] for each in ours if each["round"] in theirs
        )

    def most_busy(self, data: str, work: str, peer: str) -> float:
        """The median share of time that the load generator's core was busy."""
        return self.median(data, work, peer, "load_busy") or 0.0

    def disturbed(self) -> dict[str, float]:
        """The workloads during which other programs used much of the server's core, and how much:
        the largest median share on any data, for any service."""
        shares: dict[str, float] = {}
        for data, work in self.lines():
            for peer in self.peers():
                share = self.median(data, work, peer, "others") or 0.0
                if share > DISTURBED:
                    shares[work] = max(share, shares.get(work, 0.0))
        return shares

    def _of(self, data: str, work: str, peer: str) -> Iterator[Record]:
        for each in self._records:
            if (each["data"], each["work"], each["peer"]) == (data, work, peer):
                yield each
