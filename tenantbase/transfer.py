"""Entries in and out as lines of JSON, many at a time, in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple

import msgspec

from tenantbase.cache import Cache
from tenantbase.errors import InvalidRequest, TenantbaseError
from tenantbase.interfaces.store import Set
from tenantbase.web.answers import as_line, entry_json
from tenantbase.web.bodies import parse
from tenantbase.web.changes import SetValue, set_change

_BATCH_ENTRIES: Final = 2_000
_BATCH_BYTES: Final = 4 << 20
# The next batch is read and checked while the one before it is being committed.
_AHEAD: Final = 2
# What an entry takes besides its value: the key, escaped, and the other fields. Base64 and
# escapes make a value up to six times as long.
_AROUND: Final = 16_384
_GROWTH: Final = 6

Progress = Callable[[int], object]


class _Line(SetValue):
    """A line: an entry as the server shows it. Its id and version were of another database."""

    id: str | None = None
    version: int | None = None


_LINE: Final = msgspec.json.Decoder(_Line)


class Imported(NamedTuple):
    """How many entries were stored, and how many left out because they had expired."""

    stored: int
    expired: int


async def import_entries(
    cache: Cache, lines: BinaryIO, max_value_bytes: int, progress: Progress
) -> Imported:
    """Store an entry for each line. A key that exists is replaced.

    Batches are committed as they come, so what precedes a mistake stays stored.

    Args:
        progress: told how many bytes were read, now and then.

    Raises:
        TenantbaseError: a line is no entry, or the database refused; says how far it came.
    """
    stored = expired = 0
    under_way: list[tuple[asyncio.Task[object], int]] = []

    async def finish_one() -> None:
        nonlocal stored
        task, count = under_way.pop(0)
        await task
        stored += count

    try:
        for batch, left_out, size in _batches(cache, lines, max_value_bytes):
            expired += left_out
            if batch:
                task: asyncio.Task[object] = asyncio.ensure_future(cache.write(*batch))
                under_way.append((task, len(batch)))
            # Even with room for more, the loop must turn for the commit to begin.
            await asyncio.sleep(0)
            while len(under_way) >= _AHEAD:
                await finish_one()
            progress(size)
        while under_way:
            await finish_one()
    except TenantbaseError as error:
        for task, count in under_way:
            await asyncio.wait([task])
            stored += 0 if task.exception() else count
        raise TenantbaseError(f"{error}; {stored:,} entries were stored") from error
    return Imported(stored, expired)


def _batches(
    cache: Cache, lines: BinaryIO, max_value_bytes: int
) -> Iterator[tuple[list[Set], int, int]]:
    """Checked batches: the entries, how many were left out as expired, the bytes read."""
    longest = _GROWTH * max_value_bytes + _AROUND
    batch: list[Set] = []
    expired = size = number = 0
    while line := lines.readline(longest + 1):
        number += 1
        size += len(line)
        try:
            if len(line) > longest:
                raise InvalidRequest("the line is too long")
            if not line.isspace():
                given = parse(_LINE, line)
                now = cache.now()
                if given.expires_at is not None and given.expires_at <= now:
                    expired += 1
                else:
                    batch.append(set_change(given, None, now, max_value_bytes))
        except InvalidRequest as error:
            if batch:
                yield batch, expired, size
            field = f"{error.field}: " if error.field else ""
            raise TenantbaseError(f"line {number:,}: {field}{error.detail}") from error
        if len(batch) >= _BATCH_ENTRIES or size >= _BATCH_BYTES:
            yield batch, expired, size
            batch, expired, size = [], 0, 0
    yield batch, expired, size


async def export_entries(cache: Cache, prefix: str, lines: BinaryIO, progress: Progress) -> int:
    """Write a line for each entry whose key begins with ``prefix``, in byte order of keys.

    Args:
        progress: told how many entries were written, now and then.

    Returns: how many were written.
    """
    total = 0
    async for entries, _ in cache.scan(prefix):
        lines.write(b"".join([as_line(entry_json(entry)) for entry in entries]))
        total += len(entries)
        progress(len(entries))
    return total
