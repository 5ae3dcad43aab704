"""Parsing ``Range`` headers."""

from __future__ import annotations

import pytest

from tenantbase.web.problems import RangeNotSatisfiable
from tenantbase.web.semantics.ranges import requested


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", slice(0, 1)),
        ("bytes=2-2", slice(2, 3)),
        ("bytes=9-", slice(9, 10)),
        ("BYTES= 2-5 ", slice(2, 6)),
        ("bytes=2-99", slice(2, 10)),
        ("bytes=-3", slice(7, 10)),
        ("bytes=-99", slice(0, 10)),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, part: slice | None) -> None:
    assert requested(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_bytes_that_are_not_there(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        requested(header, 10)
    assert caught.value.headers is not None
    assert caught.value.headers["Content-Range"] == "bytes */10"
