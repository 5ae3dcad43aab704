"""Batches: which calls share one, which wait, and which get its error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from tenantbase.coherence.batcher import LATER, Batcher, Line, Unfinished


class Recorder:
    """Runs batches when told to, and records them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if 13 in items:
            raise RuntimeError("all of them")
        return [KeyError(item) if item < 0 else item * 10 for item in items]


async def turns() -> None:
    """Let everything run that waits for nothing else."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_calls_of_one_turn_are_one_batch() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, limit=100, parallel=1)
    assert await asyncio.gather(*map(batcher.submit, (1, 2, 3))) == [10, 20, 30]
    assert await batcher.submit(4) == 40
    assert recorder.batches == [[1, 2, 3], [4]]


async def test_a_batch_has_at_most_its_limit() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, limit=2, parallel=1)
    await asyncio.gather(*map(batcher.submit, range(5)))
    assert recorder.batches == [[0, 1], [2, 3], [4]]


async def test_a_batch_weighs_at_most_its_limit_or_is_one_item() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder.run, limit=5, parallel=1, weight=abs)
    await asyncio.gather(*map(batcher.submit, (1, 2, 3, 9, 2, 2, 1, 1)))
    assert recorder.batches == [[1, 2], [3], [9], [2, 2, 1], [1]]


async def test_receivers_are_called_with_results_and_errors() -> None:
    batcher = Batcher(Recorder().run, limit=100, parallel=1)
    received: list[object] = []
    for item in (1, -1, 2):
        batcher.submit_then(item, received.append)
    assert await batcher.submit(3) == 30
    one, error, two = received
    assert (one, two) == (10, 20)
    assert isinstance(error, KeyError)


async def test_a_batch_runs_in_a_context_of_its_own() -> None:
    """Its log lines must not name the request that happened to be the first."""
    request = ContextVar("request", default="none")

    async def run(items: Sequence[int]) -> list[str]:
        return [request.get()] * len(items)

    batcher = Batcher(run, limit=1, parallel=1)
    request.set("the caller's")
    assert await asyncio.gather(*map(batcher.submit, (1, 2))) == ["none"] * 2


async def test_a_receiver_that_raises_does_not_block_others() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["exception"])
    )

    def fail(result: int | Exception) -> None:
        raise ValueError(result)

    batcher = Batcher(Recorder().run, limit=100, parallel=1)
    batcher.submit_then(1, fail)
    assert await batcher.submit(2) == 20
    assert await batcher.submit(3) == 30
    assert [repr(error) for error in told] == ["ValueError(10)"]


async def test_later_calls_go_into_the_next_batch() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, limit=100, parallel=1)
    first = batcher.submit(1)
    await turns()
    later = [batcher.submit(n) for n in (2, 3)]
    await turns()
    assert recorder.batches == [[1]]
    assert batcher.waiting == 2
    recorder.gate.set()
    assert await asyncio.gather(first, *later) == [10, 20, 30]
    assert recorder.batches == [[1], [2, 3]]


async def test_batches_run_side_by_side_up_to_a_bound() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, limit=1, parallel=2)
    results = [batcher.submit(n) for n in (1, 2, 3)]
    await turns()
    assert recorder.batches == [[1], [2]]
    recorder.gate.set()
    await asyncio.gather(*results)
    assert recorder.batches == [[1], [2], [3]]


async def test_an_items_error_reaches_only_its_caller() -> None:
    batcher = Batcher(Recorder().run, limit=100, parallel=1)
    good, bad = batcher.submit(1), batcher.submit(-1)
    assert await good == 10
    with pytest.raises(KeyError):
        await bad


async def test_an_error_of_a_batch_reaches_all_its_callers_and_no_others() -> None:
    batcher = Batcher(Recorder().run, limit=100, parallel=1)
    doomed = [batcher.submit(n) for n in (1, 13)]
    for result in doomed:
        with pytest.raises(RuntimeError):
            await result
    assert await batcher.submit(2) == 20


async def test_cancelling_a_caller_stops_nothing() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, limit=100, parallel=1)
    impatient, patient = batcher.submit(1), batcher.submit(2)
    await turns()
    impatient.cancel()
    recorder.gate.set()
    assert await patient == 20


async def test_a_batch_in_its_second_step_lets_others_begin_up_to_a_bound() -> None:
    gate = asyncio.Event()
    begun: list[list[int]] = []

    async def run(items: Sequence[int]) -> Sequence[int] | Unfinished[int]:
        begun.append(list(items))

        async def finish() -> Sequence[int]:
            await gate.wait()
            return items

        return Unfinished([LATER], finish) if items[0] < 0 else items

    batcher: Batcher[int, int] = Batcher(run, limit=1, parallel=1, finishing=2)
    slow = [batcher.submit(n) for n in (-1, -2, -3)]
    fast = batcher.submit(4)
    await turns()
    assert begun == [[-1], [-2], [-3]], "the third had to stay, and keeps the fourth out"
    gate.set()
    assert await asyncio.gather(*slow, fast) == [-1, -2, -3, 4]
    await batcher.drained()


async def test_ready_results_do_not_wait_for_any_second_step() -> None:
    gate = asyncio.Event()

    async def finish() -> list[int]:
        await gate.wait()
        return [-10]

    async def run(items: Sequence[int]) -> Unfinished[int]:
        return Unfinished([LATER if item < 0 else item * 10 for item in items], finish)

    batcher: Batcher[int, int] = Batcher(run, limit=100, parallel=1)
    slow = []
    for n in range(20):
        slow.append(batcher.submit(-1))
        assert await batcher.submit(n) == n * 10
    assert not any(each.done() for each in slow)
    gate.set()
    assert await asyncio.gather(*slow) == [-10] * 20
    await batcher.drained()


async def test_drained_waits_for_everything() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = Batcher(recorder.run, limit=1, parallel=1)
    results = [batcher.submit(n) for n in (1, 2)]
    drained = asyncio.ensure_future(batcher.drained())
    await turns()
    assert not drained.done()
    recorder.gate.set()
    await drained
    assert all(result.done() for result in results)
    await batcher.drained()


async def test_drained_waits_for_items_not_yet_in_a_batch() -> None:
    batcher = Batcher(Recorder().run, limit=1, parallel=1)
    result = batcher.submit(1)
    await batcher.drained()
    assert result.done()


async def test_drained_waits_for_batches_in_their_second_step() -> None:
    gate = asyncio.Event()

    async def finish() -> list[int]:
        await gate.wait()
        return [1]

    async def run(items: Sequence[int]) -> Unfinished[int]:
        return Unfinished([LATER], finish)

    batcher: Batcher[int, int] = Batcher(run, limit=1, parallel=1, finishing=1)
    result = batcher.submit(1)
    await turns()
    drained = asyncio.ensure_future(batcher.drained())
    await turns()
    assert not drained.done()
    gate.set()
    await drained
    assert result.done()


async def test_lanes_share_a_batch_that_cannot_hold_all() -> None:
    recorder = Recorder()
    line = Line[int, int](4, None, lambda item: str(item // 100))
    batcher = Batcher(recorder.run, queue=line, parallel=1)
    items = [101, 102, 103, 104, 105, 106, 107, 201, 301, 202]
    assert await asyncio.gather(*map(batcher.submit, items)) == [item * 10 for item in items]
    assert recorder.batches == [[101, 201, 301, 102], [202, 103, 104, 105], [106, 107]]


async def test_lanes_share_by_weight() -> None:
    recorder = Recorder()
    line = Line[int, int](6, lambda item: item % 100, lambda item: str(item // 100))
    batcher = Batcher(recorder.run, queue=line, parallel=1)
    await asyncio.gather(*map(batcher.submit, [106, 106, 106, 202, 202, 202, 202]))
    assert recorder.batches == [[106], [202, 202, 202], [106], [202], [106]]
