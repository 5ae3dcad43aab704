"""Touch and rename: commands that leave the value in the database.

Values may be large, and many such commands may be queued, so none is read into Python's memory.
"""

from __future__ import annotations

import sqlite3
from typing import Final, assert_never

from tenantbase.commands import Applied, InPlaceCommand, Rename, Touch
from tenantbase.errors import NoSuchTenant
from tenantbase.events import EventKind
from tenantbase.interfaces.planning.change_log import ChangeLog
from tenantbase.interfaces.planning.identifiers import new_id
from tenantbase.interfaces.planning.in_place import (
    Row,
    growth_of,
    living,
    source_of,
)
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.sqlite.odd_rows import TYPE, made_sound, rows_of_keys
from tenantbase.interfaces.sqlite.queries import STATE
from tenantbase.interfaces.sqlite.usage import Usage, expired_rows
from tenantbase.scope import tenant_of

_FIND: Final = (
    f"SELECT created, {STATE}, length(value), {TYPE}, id, version, expires_at"
    " FROM entries WHERE key = ?"
)
_TOUCH: Final = "UPDATE entries SET version = ?, expires_at = ? WHERE created = ?"
_COPY: Final = """
    INSERT INTO entries (created, key, version, expires_at, id, content_type, value)
    SELECT ?, ?, ?, expires_at, ?, content_type, value FROM entries WHERE created = ?
"""
_DELETE: Final = "DELETE FROM entries WHERE created = ?"


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
    row = source_of(command, _find(connection, command.key, now))
    match command:
        case Touch():
            return _touch(connection, change_log, command, row)
        case Rename():
            return _rename(connection, change_log, tenant, command, row, now)
        case _:
            assert_never(command)


def _find(connection: sqlite3.Connection, key: str, now: float) -> Row | None:
    for created, state, size, *rest in rows_of_keys(connection, _FIND, (now, key)):
        return Row(created, state, size, *made_sound(key, *rest))
    return None


def _touch(
    connection: sqlite3.Connection, change_log: ChangeLog, command: Touch, row: Row
) -> Applied:
    version = change_log.next_version
    connection.execute(_TOUCH, (version, command.expires_at, row.created))
    change_log.record_set(command.key, row.size, row.content_type, command.expires_at)
    return Applied(row.entry(command.key, row.id, version, command.expires_at))


def _rename(
    connection: sqlite3.Connection,
    change_log: ChangeLog,
    tenant: TenantUsage,
    command: Rename,
    source: Row,
    now: float,
) -> Applied:
    target = _find(connection, command.to, now)
    replaced = living(target)
    growth = growth_of(tenant, command, source, target)
    if not tenant.within(*growth):
        tenant.check_growth(*growth, expired_rows(connection, tenant.name, now))

    if not command.copy:
        change_log.record(EventKind.DELETE, command.key)
        tenant.remove(command.key, source.size)
    if target is not None:
        connection.execute(_DELETE, (target.created,))
        if target.state is not None:
            tenant.remove(command.to, target.size)
    version = change_log.next_version
    identifier = new_id() if replaced is None else replaced.id
    connection.execute(_COPY, (version, command.to, version, identifier, source.created))
    if not command.copy:
        connection.execute(_DELETE, (source.created,))
    change_log.record_set(command.to, source.size, source.content_type, source.expires_at)
    tenant.entries += 1
    tenant.bytes += tenant.key_bytes(command.to) + source.size
    entry = source.entry(command.to, identifier, version, source.expires_at)
    return Applied(entry, created=replaced is None)
