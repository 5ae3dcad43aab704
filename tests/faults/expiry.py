"""Checks keys whose entries expire, by versions and times instead of all possible orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.faults.history import NEVER, Operation, Violation, by_key

# The processes of one machine share its clock, but read it at slightly different moments.
_LEEWAY: Final = 20_000_000


def check(operations: Sequence[Operation], *, clocks_jumped: bool = False) -> None:
    """Check keys that are only set, with an expiry, and read.

    Raises:
        Violation: a read saw an older version than was known before it began, or an entry after
            its time, or no entry within its time.
    """
    for history in by_key(operations).values():
        sets = {op.version: op for op in history if op.kind == "set" and op.outcome == "ok"}
        unknown = {op.value: op for op in history if op.kind == "set" and op.outcome == "unknown"}
        for read in (op for op in history if op.kind == "get" and op.outcome == "ok"):
            before = [
                op
                for op in history
                if op.outcome == "ok" and op.version is not None and op.end < read.start
            ]
            newest = max(before, key=lambda op: op.version or 0, default=None)
            if read.version is None:
                if newest is not None and not clocks_jumped:
                    _check_absence(newest, read, history)
                continue
            if read.version not in sets and read.value not in unknown:
                raise Violation("a value that was never written", read)
            if newest is not None and read.version < (newest.version or 0):
                raise Violation("a newer version was seen before this began", newest, read)
            if read.expires is None:
                raise Violation("an entry has lost its expiry", read)
            if not clocks_jumped and read.start > read.expires + _LEEWAY:
                raise Violation("an entry was seen after its time", read)


def _check_absence(newest: Operation, read: Operation, history: Sequence[Operation]) -> None:
    """No client deletes these keys, but a newer entry may have come and expired sooner."""
    assert newest.expires is not None
    replaced = any(
        op.kind == "set" and op.start < read.end and (op.version or NEVER) > (newest.version or 0)
        for op in history
        if op.outcome in ("ok", "unknown")
    )
    if not replaced and read.end < newest.expires - _LEEWAY:
        raise Violation("an entry was gone before its time", newest, read)
