"""``Cache-Control`` of requests."""

from __future__ import annotations

import math

import pytest

from tenantbase.web.semantics.negotiation import max_stale


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("max-stale=5", 5.0),
        ("max-age=0, Max-Stale=0", 0.0),
        (" no-transform ,max-stale=12 ", 12.0),
        ("max-stale", math.inf),
        ("max-stale=", None),
        ("max-stale=-1", None),
        ("max-stale=1.5", None),
        ("max-stale=soon", None),
        ("max-stale=\N{SUPERSCRIPT TWO}", None),
        ("max-stale=99999999999", None),
        ("x-max-stale=5", None),
    ],
)
def test_max_stale(header: str, expected: float | None) -> None:
    assert max_stale(header) == expected
