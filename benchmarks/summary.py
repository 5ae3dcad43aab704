"""Summarises the records of a run: medians over its rounds, ratios, goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.work import (
    BULK_GET,
    CACHED_GET,
    COLD_GET,
    DURABLE_SET,
    LARGE,
    LIST,
    MANY,
    NEGATIVE_GET,
    SMALL,
)

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
    """A goal: the ratio of tenantbase to a peer.

    Attributes:
        base: the peer's workload; None: the same.
    """

    work: str
    peer: str
    wanted: float
    data: str = SMALL.name
    base: str | None = None


GOALS: Final = (
    Goal(CACHED_GET.name, "webdis", 1.1),
    Goal(CACHED_GET.name, "webdis", 0.9, MANY.name),
    Goal(CACHED_GET.name, "constant", 1.4),
    Goal(CACHED_GET.name, "constant", 1.2, LARGE.name),
    Goal(CACHED_GET.name, "naive", 4.0),
    Goal(COLD_GET.name, "constant", 0.8),
    Goal(NEGATIVE_GET.name, OURS, 0.95, base=CACHED_GET.name),
    Goal(DURABLE_SET.name, "constant", 0.6),
    Goal(DURABLE_SET.name, "webdis", 0.75),
    Goal(BULK_GET.name, "webdis", 0.5),
    Goal(LIST.name, "naive", 1.5),
)
GOALS_P99_SECONDS: Final = {CACHED_GET.name: 0.005, DURABLE_SET.name: 0.004}


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

    def ratios(self, data: str, work: str, peer: str, base: str | None = None) -> list[float]:
        """The ratios of tenantbase to a peer, in each round in which both were measured.

        Args:
            base: the peer's workload; None: the same.
        """
        theirs = {each["round"]: each["rate"] for each in self._of(data, base or work, peer)}
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
