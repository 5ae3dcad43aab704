"""The verdicts of comparing two commits."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.access import OPEN, TOKEN, rows
from benchmarks.against import AFTER, BEFORE, MIN_ROUNDS, compare, verdict


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.02, 1.05, 1.03, 1.08, 1.02, 1.04], "faster"),
        ([0.98, 0.95, 0.97, 0.92, 0.98, 0.96], "slower"),
        ([1.30, 1.25, 0.99, 1.28, 1.31, 1.27], "no difference beyond noise"),  # rounds disagree
        ([1.002, 1.004, 1.001, 1.003, 1.002, 1.005], "no difference beyond noise"),  # too small
        ([1.30, 1.25, 1.28], "no difference beyond noise"),  # too few
    ],
)
def test_a_verdict_needs_all_rounds_to_agree(ratios: list[float], expected: str) -> None:
    assert verdict(ratios) == expected


def test_rounds_are_compared_pairwise() -> None:
    # The machine halves its speed after two rounds; the ratio within each round stays.
    loads: list[dict[str, Any]] = []
    for number in range(MIN_ROUNDS):
        speed = 1_000.0 if number < 2 else 500.0
        about = {"round": number, "work": "cached-get", "data": "small"}
        loads.append({**about, "peer": BEFORE, "rate": speed, "cost": 20e-6})
        loads.append({**about, "peer": AFTER, "rate": speed * 1.1, "cost": 18e-6})
    (record,) = compare(loads)
    assert record["rate"] == pytest.approx(1.1)
    assert record["cost"] == pytest.approx(0.9)
    assert record["verdict"] == "faster"


def test_the_cost_of_access_is_compared_within_rounds() -> None:
    # The machine halves its speed in each round; a token costs 2 % in all of them.
    costs = [{OPEN.name: speed * 1e-6, TOKEN.name: speed * 1.02e-6} for speed in (10.0, 20.0, 40.0)]
    assert rows("cached-get", costs) == [
        "| cached-get | open | 20.00 µs | 1 | |",
        "| cached-get | a token | 20.40 µs | 1.020 | 1.020 to 1.020 |",
    ]
