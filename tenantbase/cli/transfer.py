"""Whole databases as newline-delimited JSON: one entry a line, as the server lists them.

Both directions take the memory of one batch, however large the whole is, and leave others on the
same database their turns.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from typing import BinaryIO, Final, NamedTuple

from tenantbase.coherence.policy import Cache
from tenantbase.documents import as_line, entry_json
from tenantbase.errors import InvalidRequest, TenantbaseError
from tenantbase.json_requests import SetValue, SetValueDecoder
from tenantbase.interfaces.store import Set
from tenantbase.cli.interruptible import checkpoint, interruptible
from tenantbase.json_text import parse
from tenantbase.cli.reading import Entries
from tenantbase.web.semantics.writes import set_command

_BATCH_LINES: Final = 4000
_BATCH_BYTES: Final = 4 << 20
_BESIDES: Final = 64 << 10  # bytes a line may have besides its value


class _Line(SetValue, forbid_unknown_fields=True, gc=False):
    """``id`` and ``version`` are those of another database; new ones are given here."""

    id: str | None = None
    version: int | None = None


_LINE: Final = SetValueDecoder(_Line)


class _Batch(NamedTuple):
    """Lines to be stored together, and what is wrong with the line after them."""

    changes: list[Set]
    lines: int
    refused: TenantbaseError | None


async def export_lines(cache: Entries, prefix: str) -> AsyncGenerator[tuple[bytes, int], None]:
    """Every entry whose key begins with ``prefix``, in byte order of keys.

    Yields: some lines, and how many they are.
    """
    async for entries, _ in cache.scan(prefix):
        yield b"".join(as_line(entry_json(entry)) for entry in entries), len(entries)


async def import_lines(
    cache: Cache, source: BinaryIO, max_value_bytes: int
) -> AsyncGenerator[int, None]:
    """Store what the lines say, many in a transaction. What has expired is passed over.

    Args:
        source: is read while nothing else is under way, so it may block. A byte order mark at its
            beginning, as some editors write it, is passed over.

    Yields: how many lines each transaction has done.

    Raises:
        TenantbaseError: a line, which is named, cannot be stored. Those before it are.
    """
    done = 0
    while True:
        await checkpoint()
        with interruptible():
            batch = _read(source, done, max_value_bytes, cache.now())
        if batch.changes:
            try:
                await cache.write(*batch.changes)
            except TenantbaseError as error:
                raise TenantbaseError(
                    f"lines {done + 1} to {done + batch.lines}: {error}"
                ) from error
        if batch.refused is not None:
            raise batch.refused
        if not batch.lines:
            return
        done += batch.lines
        yield batch.lines


def _read(source: BinaryIO, done: int, max_value_bytes: int, now: float) -> _Batch:
    changes: list[Set] = []
    longest = 2 * max_value_bytes + _BESIDES
    lines = size = 0
    while lines < _BATCH_LINES and size < _BATCH_BYTES:
        try:
            line = source.readline(longest)
        except OSError as error:
            return _Batch(changes, lines, _stopped(done + lines + 1, error.strerror or str(error)))
        if not line:
            break
        try:
            if len(line) == longest:
                raise InvalidRequest("it is longer than any value that may be stored")
            if done + lines == 0:
                line = line.removeprefix(BOM_UTF8)
            if change := _change(line, max_value_bytes, now):
                changes.append(change)
        except InvalidRequest as error:
            field = f"{error.field}: " if error.field else ""
            refused = _stopped(done + lines + 1, f"{field}{error.detail}")
            return _Batch(changes, lines, refused)
        lines += 1
        size += len(line)
    return _Batch(changes, lines, None)


def _stopped(line: int, why: str) -> TenantbaseError:
    return TenantbaseError(f"line {line}: {why}; the lines before it are stored")


def _change(line: bytes, max_value_bytes: int, now: float) -> Set | None:
    """What a line asks for; None if it is empty or its entry has expired."""
    if not line or line.isspace():
        return None
    given = parse(_LINE, line)
    if given.if_absent or given.if_version is not None:
        raise InvalidRequest("an import has no conditions")
    if given.expires_at is not None and given.expires_at <= now:
        return None
    return set_command(given, None, now, max_value_bytes)
