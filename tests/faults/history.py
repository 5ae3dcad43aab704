"""Histories: the clients' operations on keys, each with its beginning, end and outcome."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

Kind = Literal["get", "set", "delete", "increment"]
Outcome = Literal["ok", "refused", "failed", "unknown"]
NEVER: Final = 1 << 62


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of one client.

    Attributes:
        start, end: nanoseconds of a clock shared by all clients.
        outcome: ``ok``; ``refused``: a condition did not hold, nothing was done; ``failed``:
            nothing was done; ``unknown``: it may have taken effect, or may still do so later.
        value: the value that a set wrote (unique to each set), a get saw, or an increment returned.
        version, id: of the entry written or seen; None where a get found nothing.
        created: the write's answer said that it created the entry.
        by, initial: of an increment.
        if_absent, if_version: the condition of a write.
        expires: when the entry is to expire.
        client, port: the client, and the server's port.
        heard: when the answer arrived, or the client gave up.
        status, cache, detail: of the HTTP answer: its status, 0 for none, ``X-Cache``, and what a
            problem says.
        vanished: the client disconnected on purpose.
        listed: a get that is what a list showed of the key.
    """

    key: str
    kind: Kind
    start: int
    end: int
    outcome: Outcome = "ok"
    value: int | str | None = None
    version: int | None = None
    id: str | None = None
    created: bool = False
    by: int = 1
    initial: int = 0
    if_absent: bool = False
    if_version: int | None = None
    expires: int | None = None
    client: str = ""
    port: int = 0
    heard: int = 0
    status: int = 0
    cache: str = ""
    detail: str = ""
    vanished: bool = False
    listed: bool = False

    def condition_holds(self, alive: bool, version: int | None) -> bool:
        """Whether the operation's condition holds for an entry, or for no entry (``alive`` False).
        ``version`` None stands for an entry that was never observed: it differs from every version.
        """
        if self.if_absent and alive:
            return False
        return self.if_version is None or (alive and version == self.if_version)


class Violation(Exception):
    """A history that a single copy of the data could not have produced.

    Args:
        why: one sentence.
        operations: those that contradict each other, as far as that is known.
    """

    def __init__(self, why: str, *operations: Operation) -> None:
        lines = [why, *(f"    {describe(each)}" for each in operations)]
        super().__init__("\n".join(lines))
        self.why = why
        self.operations = operations


def describe(operation: Operation) -> str:
    """One line for people: times in milliseconds, the request, the answer."""
    end = "..." if operation.end >= NEVER else f"{operation.end / 1e6:.3f}"
    told = [f"[{operation.start / 1e6:.3f}, {end}] {operation.client}", operation.kind]
    told.append(repr(operation.key))
    if operation.listed:
        told.append("in a list")
    if operation.if_absent:
        told.append("if absent")
    if operation.if_version is not None:
        told.append(f"if version {operation.if_version}")
    told += ["->", operation.outcome]
    if operation.status not in (0, 200, 204):
        told.append(f"with status {operation.status}")
    if operation.detail:
        told.append(f"({operation.detail})")
    if operation.port:
        told.append(f"from port {operation.port}")
    if operation.version is not None:
        told.append(f"version {operation.version}")
    if operation.value is not None:
        told.append(f"value {operation.value!r}")
    return " ".join(told)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations of each key, in the order in which they began."""
    keys: dict[str, list[Operation]] = {}
    for operation in sorted(operations, key=lambda each: each.start):
        keys.setdefault(operation.key, []).append(operation)
    return keys
