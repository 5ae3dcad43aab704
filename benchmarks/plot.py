"""Plots a run, with a bar for each service; and what grows with the data, as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.figure import Figure

from benchmarks.summary import OURS, Loads

_COLUMNS: Final = 4
_OURS_COLOUR: Final = "#1f6feb"
_PEER_COLOUR: Final = "#9aa4b2"


def plot(loads: Loads, path: Path) -> None:
    """Write a panel for each work on the small values."""
    works = [work for data, work in loads.lines() if data == "small"]
    rows = -(-len(works) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.1 * rows), layout="constrained")
    for index, work in enumerate(works):
        rates = {peer: loads.median("small", work, peer) for peer in reversed(loads.peers())}
        known = {peer: rate for peer, rate in rates.items() if rate is not None}
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        colours = [_OURS_COLOUR if peer == OURS else _PEER_COLOUR for peer in known]
        bars = axes.barh(list(known), list(known.values()), color=colours)
        axes.bar_label(bars, labels=[f"{rate:,.0f}" for rate in known.values()], padding=3)
        axes.set_title(f"{work.replace('-', ' ')} ({'keys' if 'bulk' in work else 'answers'}/s)")
        axes.set_xlim(right=1.35 * max(known.values()))
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    _save(figure, path)


def plot_curves(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Write a panel for each figure: its title, and its value at each size of the data."""
    rows = -(-len(curves) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 2.3 * rows), layout="constrained")
    for index, (title, points) in enumerate(curves.items()):
        sizes, values = zip(*points, strict=True)
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        axes.plot(sizes, values, marker="o", color=_OURS_COLOUR)
        for size, value in points:
            axes.annotate(
                f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}",
                (size, value),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
            )
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_xlim(sizes[0] / 2, sizes[-1] * 2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 1.3 * max(values))
        axes.yaxis.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write the plot as SVG. The same results make the same file."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tenantbase"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
