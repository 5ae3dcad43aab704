"""Import and export as newline-delimited JSON: one entry a line, as the server lists them.

Both work in batches, so memory use does not grow with the database, and other processes can write
to it in between.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncGenerator
from typing import BinaryIO, Final, NamedTuple

from tenantbase.cli.interruptible import checkpoint, interruptible
from tenantbase.database import Database, ImportBatch, Reader
from tenantbase.documents import as_line, entry_json
from tenantbase.entry import Entry
from tenantbase.errors import InvalidRequest, TenantbaseError
from tenantbase.json_requests import SetValue, SetValueDecoder
from tenantbase.json_text import parse
from tenantbase.listing import KeyRange
from tenantbase.scope import Scope

_BATCH_LINES: Final = 4000
_BATCH_BYTES: Final = 4 << 20
_LINES_BEFORE_SWEEP: Final = 3 * _BATCH_LINES  # no sweeper runs beside an import
_OTHER_FIELDS_BYTES: Final = 64 << 10  # the rest of a line, besides its value


class _Line(SetValue, forbid_unknown_fields=True, gc=False):
    """An exported entry. Its ``id`` and ``version`` are ignored: this database assigns its own."""

    id: str | None = None
    version: int | None = None


_LINE: Final = SetValueDecoder(_Line)


class _Batch(NamedTuple):
    """Lines to store together, and the error in the line after them, if there is one."""

    entries: ImportBatch
    lines: int
    refused: TenantbaseError | None


async def export_lines(
    database: Reader, scope: Scope, prefix: str
) -> AsyncGenerator[tuple[bytes, int], None]:
    """Every entry in the scope whose key begins with ``prefix``, in byte order of keys.

    Yields: a batch of lines, and their number.
    """
    plain = scope.plain
    async for items, _ in database.scan(scope, KeyRange(prefix)):
        entries = [item for item in items if isinstance(item, Entry)]
        lines = b"".join(as_line(entry_json(each.key[plain], each)) for each in entries)
        yield lines, len(entries)


async def import_lines(
    database: Database, scope: Scope, source: BinaryIO
) -> AsyncGenerator[int, None]:
    """Store the entries, many per transaction. Expired entries are skipped.

    Args:
        source: read only while no operation is in flight, so it may block. A byte order mark at the
            start, as some editors write it, is skipped.

    Yields: the number of lines in each transaction.

    Raises:
        TenantbaseError: a line cannot be stored; the text gives its number. The lines before it are
            stored.
    """
    done = unswept = 0
    while True:
        await checkpoint()
        with interruptible():
            batch = _read(database, scope, source, done)
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
        unswept += batch.lines
        if unswept >= _LINES_BEFORE_SWEEP:
            await database.sweep_after(unswept)
            unswept = 0
        yield batch.lines


def _read(database: Database, scope: Scope, source: BinaryIO, done: int) -> _Batch:
    lines, refused = _lines(source, 2 * database.limits.max_value_bytes + _OTHER_FIELDS_BYTES, done)
    entries = database.import_batch(scope)
    try:
        entries.add(_LINE.decode_all(lines))
    except InvalidRequest:
        # One is invalid, or only blank: one by one, each has an error of its own.
        for at, line in enumerate(lines):
            try:
                if line and not line.isspace():
                    entries.add([parse(_LINE, line)])
            except InvalidRequest as error:
                field = f"{error.field}: " if error.field else ""
                return _Batch(entries, at, _stopped(done + at + 1, f"{field}{error.detail}"))
    return _Batch(entries, len(lines), refused)


def _lines(source: BinaryIO, longest: int, done: int) -> tuple[list[bytes], TenantbaseError | None]:
    """The lines of the next batch, and why there is no further one, unless the input has ended."""
    lines: list[bytes] = []
    refused = None
    size = 0
    while len(lines) < _BATCH_LINES and size < _BATCH_BYTES:
        try:
            line = source.readline(longest)
        except OSError as error:
            refused = error.strerror or str(error)
            break
        if not line:
            break
        if len(line) == longest:
            refused = "the line is too long: no value of that size may be stored"
            break
        lines.append(line)
        size += len(line)
    if lines and not done:
        lines[0] = lines[0].removeprefix(BOM_UTF8)
    return lines, None if refused is None else _stopped(done + len(lines) + 1, refused)


def _stopped(line: int, why: str) -> TenantbaseError:
    return TenantbaseError(f"line {line}: {why}; the lines before it are stored")
