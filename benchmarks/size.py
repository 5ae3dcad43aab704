"""What grows with the number of entries, up to ten million.

    scripts/bench --size [--entries N] [--rounds N] [--seconds N] [--json FILE] [--publish]

It measures N entries, and beside them a tenth and a hundredth of them. ``--publish`` writes the curves,
too.
"""

from __future__ import annotations

import argparse
from typing import Final

from benchmarks import sizes
from benchmarks.markdown import README
from benchmarks.part import Part, Place, Results
from benchmarks.plot import plot_curves

_PLOT: Final = "size.svg"
_LEAST: Final = 100_000  # a hundredth of them is one list
_MOST: Final = 10_000_000  # a key has seven digits


def _measure(options: argparse.Namespace, place: Place) -> Results:
    each = [options.entries // 100, options.entries // 10, options.entries]
    return sizes.measure(each, options.rounds, options.seconds, place)


def _illustrate(results: Results) -> str:
    plot_curves(sizes.curves(results), README.with_name(_PLOT))
    return f"![What grows with the number of entries]({_PLOT})"


def main() -> None:
    """Measure, and print the table."""
    part = Part(
        "size",
        "Measure what grows with the number of entries.",
        _measure,
        sizes.render,
        _illustrate,
    )
    parser = part.parser()
    parser.add_argument(
        "--entries", type=int, default=_MOST, metavar="N", help=f"default: {_MOST:,}"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--seconds", type=int, default=5, metavar="N", help="of a load; default: 5")
    options = parser.parse_args()
    if not _LEAST <= options.entries <= _MOST:
        parser.error(f"--entries is from {_LEAST:,} to {_MOST:,}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    part.run(options)


if __name__ == "__main__":
    main()
