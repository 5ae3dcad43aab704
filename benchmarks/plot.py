"""Plots a run: a panel for each work on the small values, a bar for each service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.figure import Figure

from benchmarks.summary import OURS, Loads

_COLUMNS: Final = 4
_OURS_COLOUR: Final = "#1f6feb"
_PEER_COLOUR: Final = "#9aa4b2"


def plot(loads: Loads, path: Path) -> None:
    """Write the plot as SVG. The same results make the same file."""
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
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tenantbase"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
