"""Whole databases as newline-delimited JSON: one entry a line, as the server lists them.

Both directions take the memory of one batch, however large the whole is, and leave others on the
same database their turns.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from typing import BinaryIO, Final, NamedTuple

from tenantbase.database import Database, ImportBatch, Reader
from tenantbase.documents import as_line, entry_json
from tenantbase.errors import InvalidRequest, TenantbaseError
from tenantbase.json_requests import SetValue, SetValueDecoder
from tenantbase.cli.interruptible import checkpoint, interruptible
from tenantbase.json_text import parse
from tenantbase.scope import DEFAULT

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

    entries: ImportBatch
    lines: int
    refused: TenantbaseError | None


async def export_lines(database: Reader, prefix: str) -> AsyncGenerator[tuple[bytes, int], None]:
    """Every entry whose key begins with ``prefix``, in byte order of keys.

    Yields: some lines, and how many they are.
    """
    async for entries, _ in database.scan(DEFAULT, prefix):
        yield b"".join(as_line(entry_json(entry)) for entry in entries), len(entries)


async def import_lines(database: Database, source: BinaryIO) -> AsyncGenerator[int, None]:
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
            batch = _read(database, source, done)
        if batch.entries:
            try:
                await batch.entries.write()
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


def _read(database: Database, source: BinaryIO, done: int) -> _Batch:
    entries = database.import_batch(DEFAULT)
    longest = 2 * database.limits.max_value_bytes + _BESIDES
    lines = size = 0
    while lines < _BATCH_LINES and size < _BATCH_BYTES:
        try:
            line = source.readline(longest)
        except OSError as error:
            return _Batch(entries, lines, _stopped(done + lines + 1, error.strerror or str(error)))
        if not line:
            break
        try:
            if len(line) == longest:
                raise InvalidRequest("it is longer than any value that may be stored")
            if done + lines == 0:
                line = line.removeprefix(BOM_UTF8)
            if line and not line.isspace():
                entries.add(parse(_LINE, line))
        except InvalidRequest as error:
            field = f"{error.field}: " if error.field else ""
            refused = _stopped(done + lines + 1, f"{field}{error.detail}")
            return _Batch(entries, lines, refused)
        lines += 1
        size += len(line)
    return _Batch(entries, lines, None)


def _stopped(line: int, why: str) -> TenantbaseError:
    return TenantbaseError(f"line {line}: {why}; the lines before it are stored")
