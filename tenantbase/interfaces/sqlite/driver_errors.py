"""What the driver's errors mean."""

from __future__ import annotations

import sqlite3
from typing import Final

from tenantbase.errors import Damaged, DiskFailed, StoreFull, StoreUnavailable


def reason(error: Exception) -> str:
    """A driver's error in plain words, as the end of a sentence about the database."""
    code = error_code(error)
    return _REASONS.get(code & 0xFF, f"SQLite reports error {code}")


_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "it is locked by another program",
    sqlite3.SQLITE_LOCKED: "it is locked by another program",
    sqlite3.SQLITE_PERM: "access to it is denied",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it, or a file beside it, cannot be opened",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}


_KINDS: Final[dict[int, type[StoreUnavailable]]] = {
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: Damaged,
    sqlite3.SQLITE_IOERR: DiskFailed,
}


_READ_ERRORS: Final = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
}


def unavailable(error: Exception, what: str) -> StoreUnavailable:
    """Translate a driver's error into one of ours; ``what`` begins its sentence."""
    kind = _KINDS.get(error_code(error) & 0xFF, StoreUnavailable)
    return kind(f"{what}: {reason(error)}")


def error_code(error: Exception) -> int:
    """SQLite's extended result code; 1 (SQLITE_ERROR) where an error has none.

    A text that is not UTF-8 counts as damage.
    """
    if is_bad_text(error):
        return sqlite3.SQLITE_CORRUPT
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def is_bad_text(error: Exception) -> bool:
    """Whether the driver could not decode a text. This is its own error, which has no code."""
    return isinstance(error, sqlite3.OperationalError) and "Could not decode" in str(error)


def concerns_a_row(error: sqlite3.Error) -> bool:
    """Whether an error may concern a single row: it, or its page, is damaged or cannot be read."""
    code = error_code(error)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or code in _READ_ERRORS
