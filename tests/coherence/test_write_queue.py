"""The order of waiting writes: small ones are fast, large ones do not starve, both are bounded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tenantbase.coherence.pending import PendingWrite
from tenantbase.coherence.write_queue import (
    GROUP_BYTES,
    GROUP_ROWS,
    GROUP_WRITES,
    LARGE_BYTES,
    LARGE_ROWS,
    WriteQueue,
)
from tenantbase.commands import Delete, DeletePrefix, Set, Sweep
from tenantbase.entry import JSON


class Waiting(NamedTuple):
    """A waiting write, with the attributes that the queue uses."""

    rows: int
    bytes: int
    large: bool = False


SMALL = Waiting(1, 100)
LARGE = Waiting(LARGE_ROWS + 1, 100, True)


def queue_of(*writes: Waiting) -> WriteQueue[Waiting, int]:
    queue = WriteQueue[Waiting, int](10_000)
    for number, write in enumerate(writes):
        queue.append((write, number))
    return queue


def groups(queue: WriteQueue[Waiting, int]) -> list[list[int]]:
    taken = []
    while queue:
        taken.append([receiver for _, receiver in queue.take()])
    assert queue.bytes == 0
    return taken


@pytest.mark.parametrize(
    ("each", "count"),
    [
        (SMALL, GROUP_WRITES),
        (Waiting(GROUP_ROWS // 4, 1), 4),
        (Waiting((GROUP_ROWS + 1) // 5, 1), 4),
        (Waiting(1, GROUP_BYTES // 8), 8),
    ],
)
def test_a_group_is_bounded_in_writes_rows_and_bytes(each: Waiting, count: int) -> None:
    assert [len(group) for group in groups(queue_of(*[each] * (3 * count)))] == [count] * 3


def test_small_ones_keep_their_order() -> None:
    writes = [Waiting(1, random.Random(1).randrange(LARGE_BYTES)) for _ in range(100)]
    assert sum(groups(queue_of(*writes)), []) == list(range(100))


def test_a_large_one_is_a_group_of_its_own_and_goes_after_the_small_ones() -> None:
    assert groups(queue_of(LARGE, SMALL, LARGE, SMALL)) == [[1, 3], [0], [2]]


def test_each_small_one_waits_for_one_large_one_and_each_large_one_gets_its_turn() -> None:
    queue = queue_of(*[LARGE] * 50)
    number = 50
    large_before: dict[int, int] = {}  # the number of large groups when it arrived
    taken_large = 0
    since_large = 0
    while taken_large < 50:
        for _ in range(100):  # adds more than a third of a group's writes for each group taken
            large_before[number] = taken_large
            queue.append((SMALL, number))
            number += 1
        group = [receiver for _, receiver in queue.take()]
        if group[0] < 50:
            taken_large += 1
            since_large = 0
        else:
            since_large += 1
            assert since_large <= 3, "a large one was passed over for what came after"
            for each in group:
                assert taken_large - large_before.pop(each) <= 1


@pytest.mark.parametrize(
    ("changes", "large"),
    [
        ([Set("k", bytes(1 << 20), JSON)], False),
        ([Set("k", bytes(3 << 20), JSON)], True),
        ([Delete(f"{number}") for number in range(LARGE_ROWS)], False),
        ([Delete(f"{number}") for number in range(LARGE_ROWS + 1)], True),
        ([DeletePrefix("")], True),
        ([Sweep(500)], False),
    ],
)
def test_which_writes_are_large(
    changes: Sequence[Set | Delete | DeletePrefix | Sweep], large: bool
) -> None:
    assert PendingWrite(tuple(changes)).large == large
