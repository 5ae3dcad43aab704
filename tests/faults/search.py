"""The obvious way to decide whether a history of one key is linearizable: try every order (after
Wing and Gong), and remember the states already tried (Lowe). It takes exponential time, so it suits
a dozen operations at most. It exists to check ``checker.py``, and shares no code with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.history import Operation


class _State(NamedTuple):
    """The key's state, and all its versions and ids; None for those of unobserved writes."""

    alive: bool = False
    version: int | None = None
    value: int | str | None = None
    id: str | None = None
    last: int = 0
    ids: frozenset[str] = frozenset()


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order explains the operations on one key, which is absent at first."""
    relevant = [
        each
        for each in operations
        if each.outcome in ("ok", "refused") or (each.outcome == "unknown" and each.kind != "get")
    ]
    tried: set[tuple[frozenset[int], _State]] = set()
    return _search(relevant, frozenset(range(len(relevant))), _State(), tried)


def _search(
    operations: Sequence[Operation],
    remaining: frozenset[int],
    state: _State,
    tried: set[tuple[frozenset[int], _State]],
) -> bool:
    required = [i for i in remaining if operations[i].outcome != "unknown"]
    if not required:
        return True
    if (remaining, state) in tried:
        return False
    tried.add((remaining, state))
    horizon = min(operations[i].end for i in required)
    for i in remaining:
        if operations[i].start <= horizon:
            after = _apply(state, operations[i])
            if after is not None and _search(operations, remaining - {i}, after, tried):
                return True
    return False


def _see(state: _State, version: int | None, id_: str | None) -> _State | None:
    """The entry, with its version and id now known; None if they contradict it."""
    if state.version is None:
        if version is None or version <= state.last:
            return None
        state = state._replace(version=version, last=version)
    if state.id is None:
        if id_ is None or id_ in state.ids:
            return None
        state = state._replace(id=id_, ids=state.ids | {id_})
    return state if (state.version, state.id) == (version, id_) else None


def _apply(state: _State, op: Operation) -> _State | None:
    """The state after the operation; None if it could not have had this outcome."""
    if op.kind == "get":
        if op.version is None:
            return None if state.alive else state
        return _see(state, op.version, op.id) if state.alive and state.value == op.value else None
    holds = op.condition_holds(state.alive, state.version)
    if op.outcome == "refused":
        return None if holds else state
    if not holds:
        return None
    if op.kind == "delete":
        return state._replace(alive=False, version=None, value=None, id=None)
    value = op.value
    if op.kind == "increment":
        if state.alive and not isinstance(state.value, int):
            return None
        value = (state.value if isinstance(state.value, int) else op.initial) + op.by
        if op.outcome == "ok" and value != op.value:
            return None
    created = not state.alive
    new = state._replace(alive=True, value=value, version=None, id=None if created else state.id)
    if op.outcome == "unknown":
        return new
    return _see(new, op.version, op.id) if op.created == created else None
