"""Two commits side by side, the working tree against an earlier revision, or the working tree with
and without some options, in one run.

Each round measures both, one right after the other, and swaps their order from round to round, so
that a machine that slows down or heats up affects both. The rounds' ratios are compared. There is a
verdict only if all rounds agree on the direction and the median differs by more than ``MARGIN``:
with six rounds, chance alone produces such agreement in one comparison of thirty-two.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import dialect
from benchmarks.launch import MEMCACHED_MEGABYTES, Setup, start_tenantbase
from benchmarks.processes import BenchmarkError
from benchmarks.summary import DISTURBED
from benchmarks.work import Needs

BEFORE: Final = "before"
AFTER: Final = "after"
MARGIN: Final = 0.01
MIN_ROUNDS: Final = 6

ROOT: Final = Path(__file__).parent.parent


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Path]:
    """A work tree of a revision, removed when the block ends.

    Raises:
        BenchmarkError: there is no such revision.
    """
    tree = directory / "revision"
    _git("worktree", "add", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))


def setup(name: str, tree: Path, options: Sequence[str], needs: Needs) -> Setup:
    """Setups that run a work tree's tenantbase with these options and this environment's packages."""
    cached = needs is not Needs.NO_CACHE
    memcached = (
        ["--memcached-memory", str(MEMCACHED_MEGABYTES)] if cached else ["--memcached", "off"]
    )
    # -P: don't import tenantbase from the current directory.
    interpreter = ["env", f"PYTHONPATH={tree}", sys.executable, "-P"]
    return Setup(
        name if cached else f"{name} without cache",
        lambda port: dialect.Tenantbase(port, "HIT" if cached else "BYPASS"),
        lambda site: start_tenantbase(site, [*memcached, *options], interpreter=interpreter),
        load=True,
        warm=cached,
    )


def compare(loads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts, one record for each workload on each data set.

    Returns: ``work``, ``data``; ``rate`` and ``cost``, the ratios after / before of each round, in
        ascending order; ``verdict``; ``others``, the largest share of the server's core that other
        programs used during a load.
    """
    found: dict[tuple[str, str], dict[int, dict[str, dict[str, Any]]]] = {}
    for load in loads:
        rounds = found.setdefault((load["work"], load["data"]), {})
        rounds.setdefault(load["round"], {})[load["peer"]] = load
    records = []
    for (work, data), rounds in found.items():
        pairs = [each for each in rounds.values() if len(each) == 2]
        rates = [pair[AFTER]["rate"] / pair[BEFORE]["rate"] for pair in pairs]
        costs = [pair[AFTER]["cost"] / pair[BEFORE]["cost"] for pair in pairs]
        records.append(
            {
                "work": work,
                "data": data,
                "rate": sorted(rates),
                "cost": sorted(costs),
                "verdict": verdict(rates),
                "others": max(each["others"] for pair in pairs for each in pair.values()),
            }
        )
    return records


def verdict(ratios: Sequence[float]) -> str:
    """``faster``, ``slower`` or ``no difference beyond noise``, from the ratios of the rounds."""
    if len(ratios) >= MIN_ROUNDS:
        if min(ratios) > 1 and median(ratios) > 1 + MARGIN:
            return "faster"
        if max(ratios) < 1 and median(ratios) < 1 - MARGIN:
            return "slower"
    return "no difference beyond noise"


def table(records: Sequence[dict[str, Any]], before: str) -> str:
    """The comparison as Markdown. ``before``: what it is compared with."""
    lines = [
        f"| work | data | throughput / {before} | rounds | processor time / {before} | rounds |"
        " verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in records:
        ratios = " | ".join(
            f"{median(ratios):.3f} | {ratios[0]:.3f} to {ratios[-1]:.3f}"
            for ratios in (each["rate"], each["cost"])
        )
        lines.append(f"| {each['work']} | {each['data']} | {ratios} | {each['verdict']} |")
    others = max(each["others"] for each in records)
    if others > DISTURBED:
        lines += [
            "",
            f"**Something else used up to {others:.0%} of the server's core: go by the processor time,"
            " or repeat the comparison.**",
        ]
    return "\n".join(lines)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"git {arguments[0]}: {done.stderr.strip()}")
