"""The history checker agrees with hand-made verdicts, and with the exhaustive search."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.faults.checker import check
from tests.faults.history import NEVER, Operation, Violation
from tests.faults.search import linearizable
from tests.faults.simulated import mutated, simulated


def op(kind: str, start: int, end: int, **more: object) -> Operation:
    if "version" in more:
        more.setdefault("value", f"v{more['version']}")
        more.setdefault("id", "a")
    if more.get("outcome") == "unknown":
        end = NEVER
    return Operation("k", kind, start, end, **more)  # type: ignore[arg-type]


def wrote(start: int, end: int, version: int, **more: object) -> Operation:
    return op("set", start, end, version=version, **more)


def read(start: int, end: int, version: int | None = None, **more: object) -> Operation:
    return op("get", start, end, **({} if version is None else {"version": version, **more}))


GOOD = {
    "nothing": [],
    "absent": [read(0, 1)],
    "written, read": [wrote(0, 1, 1, created=True), read(2, 3, 1)],
    "read while it is written": [wrote(0, 9, 1, created=True), read(1, 2, 1), read(3, 4, 1)],
    "old while it is written": [
        wrote(0, 1, 1, created=True),
        wrote(2, 9, 2),
        read(3, 4, 1),
        read(5, 6, 2),
    ],
    "two overlapping readers disagree once": [
        wrote(0, 1, 1, created=True),
        wrote(2, 9, 2),
        read(3, 6, 2),
        read(4, 5, 1),
    ],
    "deleted": [wrote(0, 1, 1, created=True), op("delete", 2, 3), read(4, 5)],
    "deleted while read": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 9),
        read(3, 4, 1),
        read(5, 6),
        read(7, 8),
    ],
    "one delete in a gap, then needed for the next": [
        op("delete", 0, 9),
        wrote(1, 2, 1, created=True),
        read(20, 21),
    ],
    "deleted and made again": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 3),
        wrote(4, 5, 3, created=True, id="b"),
        read(6, 7, 3, id="b"),
    ],
    "lost, and never made": [op("set", 0, 1, value="x", outcome="unknown"), read(2, 3)],
    "lost, made late": [
        op("set", 0, 1, value="v5", outcome="unknown"),
        read(2, 3),
        read(4, 5, 5),
        read(6, 7, 5),
    ],
    "a delete lost, then seen": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 3, outcome="unknown"),
        read(4, 5, 1),
        read(6, 7),
    ],
    "lost and unseen, but it was replaced": [
        op("set", 0, 1, value="x", outcome="unknown"),
        wrote(2, 3, 2, created=False),
    ],
    "counted": [
        op("increment", 0, 1, version=1, value=1, created=True),
        op("increment", 2, 3, version=2, value=2),
        read(4, 5, 2, value=2),
    ],
    "counted, one lost and unseen": [
        op("increment", 0, 1, version=1, value=1, created=True),
        op("increment", 2, 3, outcome="unknown"),
        op("increment", 4, 5, version=3, value=3),
    ],
    "refused while there": [
        wrote(0, 1, 1, created=True),
        op("set", 2, 3, if_absent=True, value="x", outcome="refused"),
    ],
    "one of two racers wins": [
        wrote(0, 1, 1, created=True),
        wrote(2, 5, 2, if_version=1),
        op("set", 2, 5, if_version=1, value="x", outcome="refused"),
    ],
    "a retried delete": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 3),
        op("delete", 4, 5),
        read(6, 7),
    ],
}

BAD = {
    "an old value after a new one was acknowledged": [
        wrote(0, 1, 1, created=True),
        wrote(2, 3, 2),
        read(4, 5, 1),
    ],
    "an old value after a new one was read": [
        wrote(0, 1, 1, created=True),
        wrote(2, 99, 2),
        read(3, 4, 2),
        read(5, 6, 1),
    ],
    "absent after it was acknowledged": [wrote(0, 1, 1, created=True), read(2, 3)],
    "there after its delete was acknowledged": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 3),
        read(4, 5, 1),
    ],
    "back after it was seen to be gone": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 99),
        read(3, 4),
        read(5, 6, 1),
    ],
    "a value that was never written": [read(0, 1, 7)],
    "a value before it was written": [read(0, 1, 1), wrote(2, 3, 1, created=True)],
    "a write that failed was made": [
        op("set", 0, 1, value="v1", outcome="failed"),
        read(2, 3, 1),
    ],
    "a lost write was seen, then unseen": [
        wrote(0, 1, 1, created=True),
        op("set", 2, 3, value="v2", outcome="unknown"),
        read(4, 5, 2),
        read(6, 7, 1),
    ],
    "a lost delete was seen, then unseen": [
        wrote(0, 1, 1, created=True),
        op("delete", 2, 3, outcome="unknown"),
        read(4, 5),
        read(6, 7, 1),
    ],
    "one version, two values": [
        wrote(0, 1, 1, created=True),
        read(2, 3, 1, value="other"),
    ],
    "one version given twice": [
        wrote(0, 1, 1, created=True, value="x"),
        wrote(2, 3, 1, created=True, value="x2"),
    ],
    "versions against time": [wrote(0, 1, 2, created=True), wrote(2, 3, 1)],
    "an increment lost": [
        op("increment", 0, 1, version=1, value=1, created=True),
        op("increment", 2, 3, version=2, value=1),
    ],
    "an increment made twice": [
        op("increment", 0, 1, version=1, value=1, created=True),
        read(2, 3, 2, value=2),
    ],
    "two racers win": [
        wrote(0, 1, 1, created=True),
        wrote(2, 5, 2, if_version=1),
        wrote(2, 5, 3, if_version=1),
    ],
    "two racers make it": [
        wrote(0, 5, 1, created=True, if_absent=True),
        wrote(0, 5, 2, created=True, if_absent=True, id="b"),
    ],
    "refused though it was absent": [
        op("set", 0, 1, if_absent=True, value="x", outcome="refused"),
    ],
    "refused though it was that version": [
        wrote(0, 1, 1, created=True),
        op("set", 2, 3, if_version=1, value="x", outcome="refused"),
    ],
    "made, though it was there": [
        wrote(0, 1, 1, created=True),
        wrote(2, 3, 2, created=True, id="b"),
    ],
    "another id without a delete": [
        wrote(0, 1, 1, created=True),
        read(2, 3, 1),
        op("set", 4, 5, value="v2", outcome="unknown"),
        read(6, 7, 2, id="b"),
    ],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_a_good_history_passes(history: list[Operation]) -> None:
    check(history)
    assert linearizable(history)


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_a_bad_history_is_found(history: list[Operation]) -> None:
    with pytest.raises(Violation):
        check(history)
    assert not linearizable(history)


def verdict(history: list[Operation]) -> bool:
    try:
        check(history)
    except Violation:
        return False
    return True


@settings(max_examples=1000)
@given(seed=st.integers(0, 2**32), counter=st.booleans(), size=st.integers(2, 9))
@example(seed=40469, counter=False, size=8)  # an unobserved write, deleted before it is a reason
def test_the_checker_and_the_plain_search_agree(seed: int, counter: bool, size: int) -> None:
    chance = random.Random(seed)
    history = simulated(chance, size, counter=counter)
    assert verdict(history), history
    assert linearizable(history), history
    for _ in range(5):
        changed = mutated(chance, history)
        assert verdict(changed) == linearizable(changed), changed


def test_a_long_history_is_quick_to_check() -> None:
    history = simulated(random.Random(1), 20_000, clients=12, lost=0.05)
    check(history)
