"""The referee, where an operator has declared a loss."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.history import NEVER, Operation
from tests.faults.loss import Loss
from tests.faults.referee import Referee, check_history

# Position 2 survives; 3 and 4 are lost.
_LOSS = Loss(since=100, begin=200, end=210, lost=((2, 1000),))


def _op(kind: Any, start: int, end: int, **told: Any) -> Operation:
    heard = told.pop("heard", end)
    made = Operation("r1/1", kind, start, end, heard=heard)
    if told.get("version") is not None:
        told.setdefault("id", "a")
        told.setdefault("value", f"v{told['version']}")
    return Operation(
        **{name: getattr(made, name) for name in ("key", "kind", "start", "end", "heard")} | told
    )


_SETS = (
    _op("set", 10, 20, version=1, created=True),
    _op("set", 30, 40, version=2),
    _op("set", 110, 120, version=3),
)


def _found(*operations: Operation) -> list[str]:
    return check_history([*_SETS, *operations], clocks_jump=False, losses=[_LOSS])


@pytest.mark.parametrize(
    "after",
    [
        (_op("get", 220, 230, version=2),),
        (_op("get", 130, 140, version=3), _op("get", 220, 230, version=2)),
        (_op("set", 190, 230, version=1001), _op("get", 240, 250, version=1001)),
        (_op("get", 190, 230, version=3), _op("get", 220, 230, version=2)),
        # A delete that is lost, and one that is not.
        (_op("delete", 130, 140), _op("get", 150, 160), _op("get", 220, 230, version=2)),
        (_op("delete", 130, 140), _op("get", 150, 160), _op("get", 220, 230)),
        # A write whose answer was lost, as it was itself: it was seen, and told as not made.
        (
            _op("set", 130, 260, value="v4", outcome="failed"),
            _op("get", 150, 160, version=4),
            _op("get", 220, 230, version=2),
        ),
    ],
    ids=["lost", "seen", "new", "spans", "delete lost", "delete kept", "failed"],
)
def test_a_declared_loss_is_no_violation(after: tuple[Operation, ...]) -> None:
    assert _found(*after) == []


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ((_op("get", 220, 230, version=3),), "a lost version was seen again"),
        ((_op("get", 220, 230, version=1),), "newer"),
        ((_op("get", 220, 230),), ""),
        ((_op("get", 150, 160, version=2),), "newer"),
        (
            (_op("set", 190, 230, version=1001), _op("get", 240, 250, version=2)),
            "newer",
        ),
        (
            (
                _op("set", 220, 230, value="v4", outcome="failed"),
                _op("get", 240, 250, version=1001, value="v4"),
            ),
            "not made",
        ),
    ],
    ids=["resurrected", "more is lost", "entry is lost", "before", "afterwards", "failed"],
)
def test_everything_else_still_is(after: tuple[Operation, ...], why: str) -> None:
    (found,) = _found(*after)
    assert why in found


def test_what_is_in_doubt_stays_so() -> None:
    unknown = _op("set", 130, NEVER, heard=150, value="v4", outcome="unknown")
    assert _found(unknown, _op("get", 220, 230, version=2)) == []
    assert _found(unknown, _op("get", 220, 230, version=1001, value="v4")) == []


@pytest.mark.parametrize(("last", "found"), [(3, 0), (2, 1)], ids=["lost", "kept"])
def test_what_was_seen_last_may_be_lost_afterwards(last: int, found: int) -> None:
    """A slice may be checked while an operator gives up what it has just shown."""
    with ThreadPoolExecutor(1) as pool:
        referee = Referee(lambda _: None, 0, 1.0, pool)
        seen = _op("get", 150, 160, version=last)
        referee._remember("r1/1", [_SETS[0], seen])
        referee.losses.append(_LOSS)
        referee._compare(_op("get", 300, 310, version=1))
    assert len(referee.lost) == found
