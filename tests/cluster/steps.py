"""The steps of the protocol at which a node of a cluster can be stopped, named as in the design:
R of a read, W of a group of writes, J of joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tenantbase.interfaces.cache import Answer, Item
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.postgres import (
    confirmation,
    joining,
    queries,
    settling,
    survey,
    transaction,
    writing,
)
from tenantbase.interfaces.postgres.confirmation import Question
from tenantbase.interfaces.postgres.connection import Connection, Rows
from tests.faults.control import Control

# Before a statement is sent, and after it was answered.
_AROUND: Final[dict[str | Question, tuple[str, str]]] = {
    queries.ASK: ("R1-ask", "R3-answered"),
    confirmation._WITNESS: ("R1-witness", "R3-witnessed"),
    queries.READ: ("R5-read", "R6-row"),
    queries.LOOK_UP: ("W1-look-up", "W2-rows"),
    writing._COMMIT: ("W3-commit", "W4-committed"),
    transaction._LOCK: ("W5-lock", "W5-locked"),
    transaction._FINISH: ("W5-finish", "W5-finished"),
    settling._MARK: ("W7-mark", "W7-marked"),
    queries.SETTLED: ("W7-look", "W7-settled"),
    survey.FACTS: ("J1-facts", "J2-found"),
    joining._CLOCK: ("J3-lock", "J3-locked"),
    joining._TERMS: ("J3-terms", "J4-joined"),
}
_RING: Final = ("R2-get", "R4-judge", "W6-publish")
STEPS: Final = (*_RING, *(step for steps in _AROUND.values() for step in steps))


def install(control: Control) -> None:
    """Let this process's node call the control at every step."""
    around: dict[str, tuple[str, str]] = {}
    for statement, steps in _AROUND.items():
        texts = [statement] if isinstance(statement, str) else list(statement)
        around.update(dict.fromkeys(texts, steps))
    fetch = Connection.fetch
    get_many, set_many = MemcacheClient.get_many, MemcacheClient.set_many

    async def stepped_fetch(self: Connection, statement: str, *args: object) -> Rows:
        steps = around.get(statement)
        if steps is None:
            return await fetch(self, statement, *args)
        await control.reach_async(steps[0])
        rows = await fetch(self, statement, *args)
        await control.reach_async(steps[1])
        return rows

    async def stepped_get_many(
        self: MemcacheClient, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        await control.reach_async("R2-get")
        found = await get_many(self, names, known)
        await control.reach_async("R4-judge")
        return found

    async def stepped_set_many(self: MemcacheClient, items: Sequence[Item]) -> None:
        await control.reach_async("W6-publish")
        await set_many(self, items)

    Connection.fetch = stepped_fetch  # type: ignore[method-assign]
    MemcacheClient.get_many = stepped_get_many  # type: ignore[method-assign]
    MemcacheClient.set_many = stepped_set_many  # type: ignore[method-assign]
