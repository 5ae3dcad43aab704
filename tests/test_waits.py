"""Results of batches, as tasks and functions receive them, and what they waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tenantbase.errors import Overloaded
from tenantbase.stages import Stage
from tenantbase.waits import DELIVERY, BatchCall, BatchResult, Timing

ERROR = Overloaded("too slow")


def test_a_function_receives_one_result() -> None:
    received: list[int | Exception] = []
    call = BatchCall[int](received.append)
    assert not call.done()
    call.settle(1)
    assert call.done()
    call.settle(2)
    call.give_up(Stage.QUEUE, ERROR)
    assert received == [1]


def test_a_function_receives_an_error_with_the_stage_that_took_too_long() -> None:
    received: list[int | Exception] = []
    stages: list[Stage] = []

    def receive(result: int | Exception) -> None:
        assert DELIVERY.timing is not None
        received.append(result)
        stages.extend(span.stage for span in DELIVERY.timing.stages)

    call = BatchCall[int](receive)
    call.give_up(Stage.COMMIT, ERROR)
    call.settle(1)
    assert (received, stages) == ([ERROR], [Stage.COMMIT])
    assert DELIVERY.timing is None


async def test_a_task_gets_the_error_and_the_stage() -> None:
    result = BatchResult[int](asyncio.get_running_loop())
    result.give_up(Stage.COMMIT, ERROR)
    result.settle(1)
    with pytest.raises(Overloaded):
        await result
    assert result.timing is not None
    assert [span.stage for span in result.timing.stages] == [Stage.COMMIT]


def test_what_is_due_at_the_end_of_a_delivery_is_called_once_there() -> None:
    called: list[int] = []

    def note(number: int) -> Callable[[], None]:
        return lambda: called.append(number)

    DELIVERY.at_end(note(1))
    assert called == [1], "there is no delivery"
    DELIVERY.begin(Timing())
    DELIVERY.at_end(note(2))
    DELIVERY.at_end(note(3))
    assert called == [1]
    DELIVERY.end()
    DELIVERY.begin(Timing())
    DELIVERY.end()
    assert sorted(called) == [1, 2, 3]
