"""Moves a database to another system, while servers write to it.

It works as replication does. Rows are copied in order of their keys, in short queries; what changes
meanwhile is copied again, by the change log. Every step is one transaction of the target, which also
notes how far the move has come. So a move that is killed goes on where it was.

When the source is quiet, a last pass follows the rest. Then every row is compared, and only after that
do servers see the target.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from tenantbase.access import Access
from tenantbase.errors import CannotWrite, StoreUnavailable
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.moving import Progress, Row, Rows, Source, Target
from tenantbase.scope import plain_key, tenant_of

_FOLLOW_LINES: Final = 4_000  # of the change log, read at once
_FEW_LINES: Final = 500  # are left to the last pass
_MOST_ATTEMPTS: Final = 3
_LEAST_PAUSE_SECONDS: Final = 0.001
_CHECKSUM_BYTES: Final = 16


class Moved(NamedTuple):
    """What has been moved.

    Attributes:
        entries: how many.
        version: as of which version; later ones are higher.
        checksum: of all entries, in hexadecimal digits.
    """

    entries: int
    version: int
    checksum: str


class _Overtaken(Exception):
    """Lines of the change log that are still needed are gone."""


async def follow(source: Source, target: Target, tell: Callable[[int], object]) -> int:
    """Copy, beginning or going on, until few changes are left. Servers may write to the source.

    Args:
        tell: called with the number of rows copied in each step.

    Returns: the version that was reached.

    Raises:
        CannotWrite: the target is being moved to from another source.
        StoreError: one of them does not answer.
    """
    return await _Move(source, target, tell, _FEW_LINES).run()


async def finish(source: Source, target: Target, tell: Callable[[int], object]) -> Moved:
    """Copy what is left, compare all rows, and show the target to servers.

    Args:
        tell: called with the number of rows copied or compared in each step.

    Raises:
        InUse: servers have the source open.
        CannotWrite: as ``follow``; or the copy differs from the source.
        StoreError: as ``follow``.
    """
    async with source.quiet():
        await _Move(source, target, tell, 0).run()
        summary = await _compare(source, target, tell)
        access = summary.counted(await source.access())
        version = await source.last_version()
        last = await source.last_change()
    if last is None or last.version < version:
        # Versions were skipped, and a watch that resumes within the gap has to read everything.
        last = ChangeEvent(version, EventKind.RESET, "")
    await target.finish(access, last, version)
    return Moved(summary.entries, version, summary.checksum)


class _Move:
    def __init__(
        self, source: Source, target: Target, tell: Callable[[int], object], few: int
    ) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._few = few

    async def run(self) -> int:
        progress = await self._target.progress()
        if progress is None:
            progress = await self._begin()
        elif progress.source != self._source.identity:
            raise CannotWrite("the target has an unfinished copy of another database")
        for _ in range(_MOST_ATTEMPTS):
            try:
                return await self._copy(progress)
            except _Overtaken:
                progress = await self._begin()
        raise StoreUnavailable("the source changes faster than it can be copied")

    async def _begin(self) -> Progress:
        progress = Progress(self._source.identity, "", await self._source.last_version())
        await self._target.begin(progress)
        return progress

    async def _copy(self, progress: Progress) -> int:
        begun = time.monotonic()
        while progress.copied is not None:
            progress = await self._step(progress)
            progress = await self._catch_up(progress, _FOLLOW_LINES)
            if self._few:
                # As long as the step took: servers on the same processors and disk go first.
                await asyncio.sleep(max(time.monotonic() - begun, _LEAST_PAUSE_SECONDS))
                begun = time.monotonic()
        progress = await self._catch_up(progress, self._few)
        return progress.version

    async def _step(self, progress: Progress) -> Progress:
        """Copy the next page of rows."""
        assert progress.copied is not None
        rows = await self._source.rows(progress.copied)
        progress = progress._replace(copied=rows[-1].key if rows else None)
        await self._target.put(rows, [], progress)
        self._tell(len(rows))
        return progress

    async def _catch_up(self, progress: Progress, few: int) -> Progress:
        """Copy again what has changed, until at most ``few`` changes are left."""
        while await self._source.last_version() - progress.version > few:
            lines, reached = await self._source.changes(progress.version, _FOLLOW_LINES)
            if not reached:
                raise _Overtaken
            if not lines:  # versions were skipped
                break
            for line in lines:
                if line.kind is EventKind.RESET:
                    await self._target.hide(line.key, line.version)
            keys = {line.key for line in lines if line.kind is not EventKind.RESET}
            progress = await self._copy_keys(sorted(keys), progress, lines[-1].version)
        return progress

    async def _copy_keys(self, keys: Sequence[str], progress: Progress, version: int) -> Progress:
        """Copy keys as they are now. If they change again, a later line of the log says so."""
        found: set[str] = set()
        after = ""
        while rows := await self._source.rows(after, keys):
            await self._target.put(rows, [], progress)
            found.update(row.key for row in rows)
            after = rows[-1].key
        progress = progress._replace(version=version)
        await self._target.put([], [key for key in keys if key not in found], progress)
        return progress


@dataclass
class _Summary:
    """What was counted while the rows were compared."""

    entries: int = 0
    checksum: str = ""
    usage: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, row: Row) -> None:
        self.entries += 1
        tenant = tenant_of(row.key)
        entries, size = self.usage.get(tenant, (0, 0))
        self.usage[tenant] = entries + 1, size + len(plain_key(row.key).encode()) + len(row.value)

    def counted(self, access: Access) -> Access:
        """The same tenants, with the usage that was counted."""
        tenants = {}
        for name, tenant in access.tenants.items():
            entries, size = self.usage.get(name, (0, 0))
            tenants[name] = msgspec.structs.replace(tenant, entries=entries, bytes=size)
        return msgspec.structs.replace(access, tenants=tenants)


async def _compare(source: Rows, target: Rows, tell: Callable[[int], object]) -> _Summary:
    """Compare all rows. Raises CannotWrite, which names the first key that differs."""
    summary = _Summary()
    checksum = blake2b(digest_size=_CHECKSUM_BYTES)
    others = _all_rows(target)
    async for row in _all_rows(source):
        if await anext(others, None) != row:
            raise CannotWrite(f"the copy is not correct: it differs at the key {row.key!r}")
        checksum.update(msgspec.msgpack.encode(row))
        summary.count(row)
        tell(1)
    if (extra := await anext(others, None)) is not None:
        raise CannotWrite(f"the copy is not correct: it also has the key {extra.key!r}")
    summary.checksum = checksum.hexdigest()
    return summary


async def _all_rows(of: Rows) -> AsyncIterator[Row]:
    after = ""
    while page := await of.rows(after):
        for row in page:
            yield row
        after = page[-1].key
