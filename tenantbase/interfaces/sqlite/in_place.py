"""Touch and rename: commands that leave the value in the database.

Values may be large, and many such commands may be queued, so none is read into Python's memory.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Final, NamedTuple, assert_never

from tenantbase.commands import Applied, InPlaceCommand, Rename, Touch
from tenantbase.entry import Entry
from tenantbase.errors import ConditionFailed, NoSuchKey, NoSuchTenant
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.change_log import ChangeLog
from tenantbase.interfaces.sqlite.queries import STATE
from tenantbase.interfaces.sqlite.usage import TenantUsage, Usage, expired_rows
from tenantbase.scope import ScopedKey, plain_key, tenant_of

_FIND: Final = (
    f"SELECT created, {STATE}, length(value), content_type, id, version, expires_at"
    " FROM entries WHERE key = ?"
)
_TOUCH: Final = "UPDATE entries SET version = ?, expires_at = ? WHERE created = ?"
_COPY: Final = """
    INSERT INTO entries (created, key, version, expires_at, id, content_type, value)
    SELECT ?, ?, ?, expires_at, ?, content_type, value FROM entries WHERE created = ?
"""
_DELETE: Final = "DELETE FROM entries WHERE created = ?"


class _Row(NamedTuple):
    """A row, without its value.

    Attributes:
        state: None for a row under a deleted prefix, which does not count; 0 for one that has
            expired; 1 for an entry.
    """

    created: int
    state: int | None
    size: int
    content_type: str
    id: str
    version: int
    expires_at: float | None


def apply_in_place(
    connection: sqlite3.Connection,
    change_log: ChangeLog,
    usage: Usage,
    command: InPlaceCommand,
    now: float,
) -> Applied:
    """Carry out a command.

    Raises:
        NoSuchKey, ConditionFailed, NoSuchTenant, QuotaExceeded: nothing was done.
    """
    tenant = usage.of(tenant_of(command.key))
    if tenant is None:
        raise NoSuchTenant(tenant_of(command.key))
    row = _find(connection, command.key, now)
    living = row is not None and row.state
    version = row.version if row is not None and living else None
    if command.condition is not None and not command.condition.holds(version):
        raise ConditionFailed(plain_key(command.key), version)
    if row is None or not living:
        raise NoSuchKey()
    match command:
        case Touch():
            return _touch(connection, change_log, command, row)
        case Rename():
            return _rename(connection, change_log, tenant, command, row, now)
        case _:
            assert_never(command)


def _find(connection: sqlite3.Connection, key: str, now: float) -> _Row | None:
    row = connection.execute(_FIND, (now, key)).fetchone()
    return None if row is None else _Row(*row)


def _touch(
    connection: sqlite3.Connection, change_log: ChangeLog, command: Touch, row: _Row
) -> Applied:
    version = change_log.next_version
    connection.execute(_TOUCH, (version, command.expires_at, row.created))
    change_log.record_set(command.key, row.size, row.content_type, command.expires_at)
    return Applied(_entry(command.key, row, row.id, version, command.expires_at))


def _rename(
    connection: sqlite3.Connection,
    change_log: ChangeLog,
    tenant: TenantUsage,
    command: Rename,
    source: _Row,
    now: float,
) -> Applied:
    target = _find(connection, command.to, now)
    replaced = target if target is not None and target.state else None
    if replaced is not None and not command.replace:
        raise ConditionFailed(plain_key(command.to), replaced.version)
    source_bytes = tenant.key_bytes(command.key) + source.size
    target_bytes = tenant.key_bytes(command.to) + source.size
    entries = (replaced is None) - (not command.copy)
    size = target_bytes - (0 if command.copy else source_bytes)
    if replaced is not None:
        size -= tenant.key_bytes(command.to) + replaced.size
    tenant.check_growth(entries, size, lambda: expired_rows(connection, tenant.name, now))

    if not command.copy:
        change_log.record(EventKind.DELETE, command.key)
        tenant.remove(command.key, source.size)
    if target is not None:
        connection.execute(_DELETE, (target.created,))
        if target.state is not None:
            tenant.remove(command.to, target.size)
    version = change_log.next_version
    identifier = str(uuid.uuid4()) if replaced is None else replaced.id
    connection.execute(_COPY, (version, command.to, version, identifier, source.created))
    if not command.copy:
        connection.execute(_DELETE, (source.created,))
    change_log.record_set(command.to, source.size, source.content_type, source.expires_at)
    tenant.entries += 1
    tenant.bytes += target_bytes
    entry = _entry(command.to, source, identifier, version, source.expires_at)
    return Applied(entry, created=replaced is None)


def _entry(key: str, row: _Row, identifier: str, version: int, expires_at: float | None) -> Entry:
    return Entry(ScopedKey(key), b"", row.content_type, identifier, version, expires_at)
