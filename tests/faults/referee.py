"""Collects the clients' observations, and checks them slice by slice in other processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

import msgspec

from tests.faults import checker, expiry
from tests.faults.client import DAMAGED, keys_of, slice_of
from tests.faults.history import NEVER, Operation, Violation, by_key, describe
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.loss import Loss, histories, remaining
from tests.faults.values import token_of

_MARGIN: Final = 200_000_000  # the most nanoseconds between the choice of a key and its use
_ANSWERS: Final = 20.0
_BATCH: Final = 100
_BLOCK: Final = 1 << 16


class _LastSeen(msgspec.Struct, frozen=True):
    version: int | None
    value: int | str | None
    settled: bool  # None if it has no write of unknown outcome


class Given:
    """The versions that were given out, a byte for each. The versions of one term are close
    together."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}

    def add(self, version: int) -> bool:
        """Returns: whether it is new."""
        number, at = divmod(version, _BLOCK)
        block = self._blocks.setdefault(number, bytearray())
        block.extend(bytes(max(0, at + 1 - len(block))))
        is_new = not block[at]
        block[at] = True
        return is_new


class Referee:
    """Collects and checks everything that clients have seen.

    Args:
        heard: called with every operation.
        begin: when the first slice began, in nanoseconds of the monotonic clock.
        slice_seconds: how long each is.
        pool: processes that check histories.
        token: of the tenant whose keys these are; empty: the servers need none.
        given: the versions that writes were acknowledged with. The referees of all tenants share
            them, because versions are those of the whole database.

    Attributes:
        violations: descriptions of histories that a single copy of the data could not have
            produced.
        lost: descriptions of entries that differed at the end from their last observation.
        checked, keys: the number of operations checked, and of keys.
        kept: the number of keys that were checked at the end.
        losses: those that an operator has declared, in order.
        given_up: the number of acknowledged writes that were lost with them.
    """

    def __init__(
        self,
        heard: Callable[[Operation], object],
        begin: int,
        slice_seconds: float,
        pool: Executor,
        token: str = "",
        given: Given | None = None,
    ) -> None:
        self._heard = heard
        self._begin = begin
        self._slice = int(slice_seconds * 1e9)
        self._pool = pool
        self._clocks_right_since = 0
        self._slices: dict[int, list[Operation]] = {}
        self._told: dict[object, int] = {}
        self._seen: dict[str, _LastSeen] = {}
        self._token = token
        self._given = Given() if given is None else given
        self.violations: list[str] = []
        self.lost: list[str] = []
        self.checked = 0
        self.keys = 0
        self.kept = 0
        self.losses: list[Loss] = []
        self.given_up = 0

    def hear(self, operations: Iterable[Operation]) -> None:
        """Add what clients have seen."""
        for operation in operations:
            self._slices.setdefault(slice_of(operation.key), []).append(operation)
            self._note_version(operation)
            self._heard(operation)

    def told(self, who: object, until: int) -> None:
        """Note that a source has reported everything that began before that moment."""
        self._told[who] = until

    @contextmanager
    def pending(self) -> Iterator[None]:
        """Operations that begin inside the block are reported before the block ends."""
        who = object()
        self._told[who] = time.monotonic_ns()
        try:
            yield
        finally:
            del self._told[who]

    @contextmanager
    def wrong_clocks(self) -> Iterator[None]:
        """Inside the block the servers' clocks are wrong, so entries expire at other times."""
        self._clocks_right_since = NEVER
        try:
            yield
        finally:
            self._clocks_right_since = time.monotonic_ns()

    def complete(self) -> list[int]:
        """The slices that are completely reported."""
        until = min((time.monotonic_ns(), *self._told.values()))
        return [
            number
            for number in self.known()
            if self._begin + (number + 1) * self._slice + _MARGIN < until
        ]

    def known(self) -> list[int]:
        """The slices with unchecked operations."""
        return sorted(self._slices)

    async def check(self, number: int, ports: Sequence[int]) -> None:
        """Read a slice's keys from every server, and check its histories."""
        operations = self._slices.pop(number)
        keys = [key for kind in keys_of(number).values() for key in kind]
        for port in ports:
            operations += await self._read(port, keys) or ()
        for key, history in by_key(remaining(operations, self.losses)).items():
            self._remember(key, history)
        self.given_up += sum(
            each.kind != "get" and each.outcome == "ok" and loss.takes(each.version)
            for each in operations
            for loss in self.losses
        )
        found = await asyncio.get_running_loop().run_in_executor(
            self._pool,
            check_history,
            operations,
            self._clocks_right_since > self._begin + number * self._slice,
            self.losses,
        )
        self.checked += len(operations)
        self.keys += len({each.key for each in operations})
        self.violations += found

    async def look_back(self, ports: Sequence[int]) -> None:
        """At the end, check that entries are still there, and deleted keys still absent."""
        keys = sorted(self._seen)
        self.kept = len(keys)
        for port in ports:
            for at in range(0, len(keys), _BATCH):
                now = await self._read(port, keys[at : at + _BATCH])
                if now is None:
                    self.lost.append(f"port {port} does not answer at the end")
                    return
                for operation in now:
                    self._compare(operation)

    def _note_version(self, write: Operation) -> None:
        """Find lost writes by version: the version of a lost write is given out again."""
        if write.kind not in ("set", "increment") or write.outcome != "ok":
            return
        if not self._given.add(write.version or 0):
            self.violations.append(f"its version was given to another write: {describe(write)}")

    def _compare(self, now: Operation) -> None:
        last = self._seen[now.key]
        if any(loss.takes(last.version) for loss in self.losses):
            return  # it was seen before the loss was declared, and is lost with what it was
        same = (now.version, now.value) == (last.version, last.value)
        # A write without an answer may take effect late, but no key goes back to an older state.
        if not same and (last.settled or 0 < (now.version or 0) < (last.version or 0)):
            self.lost.append(f"{now.key}: {last} was seen last, and {now} at the end")

    def _remember(self, key: str, history: Sequence[Operation]) -> None:
        if key.startswith("t"):
            return  # may expire at any time
        reads = [each for each in history if each.kind == "get" and each.outcome == "ok"]
        settled = not any(each.outcome == "unknown" for each in history)
        writes = [each for each in history if each.kind != "get" and each.outcome == "ok"]
        if reads and all(each.end < reads[-1].start for each in writes):
            self._seen[key] = _LastSeen(reads[-1].version, reads[-1].value, settled)

    async def _read(self, port: int, keys: list[str]) -> list[Operation] | None:
        start = time.monotonic_ns()
        async with HttpClient(port, _ANSWERS, self._token) as server:
            try:
                answer = await server.ask(
                    "POST", "/get-values", msgspec.json.encode({"keys": keys})
                )
            except (NotSent, NoAnswer):
                return None
        end = time.monotonic_ns()
        if answer.status != 200:
            return None
        try:
            found = {entry["key"]: entry for entry in answer.json["values"]}
        except ValueError:  # not JSON
            found = dict.fromkeys(keys, DAMAGED)
        operations = []
        for key in keys:
            operation = Operation(key, "get", start, end, client="referee", port=port)
            if key in found:
                value = found[key]["value"]
                operation = msgspec.structs.replace(
                    operation,
                    version=found[key]["version"],
                    id=found[key]["id"],
                    value=value if isinstance(value, int) else token_of(value),
                    expires=None if found[key]["expires_at"] is None else end,
                )
            operations.append(operation)
        return operations


def check_history(
    operations: Sequence[Operation], clocks_jump: bool, losses: Sequence[Loss] = ()
) -> list[str]:
    """The violations in a history, one text for each key that has one."""
    found = []
    for key, history in by_key(operations).items():
        try:
            for left in histories(history, losses):
                if key.startswith("t"):
                    expiry.check(left, clocks_jumped=clocks_jump)
                else:
                    checker.check(left)
        except Violation as violation:
            found.append(f"{key}: {violation}")
    return found
