"""Tenants and tokens: reading them, and the commands that change them.

Such a command is a transaction of its own. If it changes anything, it gives the state a new
version, by which processes notice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from tenantbase.access import Access, Token
from tenantbase.commands import (
    AdminCommand,
    Applied,
    CreateToken,
    DeleteTenant,
    DisableTokens,
    PutTenant,
    RevokeToken,
)
from tenantbase.errors import Damaged, NoSuchTenant
from tenantbase.interfaces.planning.access import (
    EXPIRED_TOKENS_KEPT_SECONDS,
    LIMIT_COLUMNS,
    TOKEN_COLUMNS,
    access_of,
    check_deletable,
    new_limits,
    tenant_of_row,
    token_exists,
    token_of_row,
    token_row,
)
from tenantbase.interfaces.planning.change_log import ChangeLog
from tenantbase.interfaces.sqlite.queries import snapshot
from tenantbase.interfaces.sqlite.sweep import hide_range
from tenantbase.scope import Scope

_STATE: Final = "SELECT version, closed FROM access"
_TENANTS: Final = f"SELECT name, entries, bytes, {LIMIT_COLUMNS} FROM tenants ORDER BY name"
_TENANT: Final = f"SELECT {LIMIT_COLUMNS} FROM tenants WHERE name = ?"
_PUT_TENANT: Final = f"""
    INSERT INTO tenants (name, entries, bytes, {LIMIT_COLUMNS}) VALUES (?, 0, 0, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET max_entries = excluded.max_entries,
    max_bytes = excluded.max_bytes, max_requests_per_second = excluded.max_requests_per_second
"""
_TOKENS: Final = f"SELECT digest, {TOKEN_COLUMNS} FROM tokens ORDER BY rowid"
_PUT_TOKEN: Final = f"""
    INSERT INTO tokens (digest, {TOKEN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
_REMOVE_EXPIRED: Final = "DELETE FROM tokens WHERE expires_at <= ?"


def damaged_rows(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the rows of tenants and tokens, for ``tenantbase check``."""
    state = connection.execute(_STATE).fetchall()
    if len(state) != 1 or not all(isinstance(value, int) for value in state[0]):
        yield "it is not known whether requests need a token"
    rows: list[tuple[Callable[[Sequence[Any]], object], Sequence[Any]]] = []
    rows += ((tenant_of_row, row) for row in connection.execute(_TENANTS))
    rows += ((token_of_row, row[1:]) for row in connection.execute(_TOKENS))
    for decode, row in rows:
        try:
            decode(row)
        except Damaged as error:
            yield str(error)


def read_access(connection: sqlite3.Connection, known: int | None) -> Access | None:
    """See ``Store.access``."""
    version, _ = connection.execute(_STATE).fetchone()
    if version == known:
        return None
    with snapshot(connection):
        version, closed = connection.execute(_STATE).fetchone()
        tenants = connection.execute(_TENANTS).fetchall()
        tokens = connection.execute(_TOKENS).fetchall()
    return access_of(version, bool(closed), tenants, tokens)


def administer(
    connection: sqlite3.Connection, change_log: ChangeLog, command: AdminCommand
) -> Applied:
    """Carry out a command on tenants or tokens.

    Raises:
        NoSuchTenant, TenantRequired, InvalidRequest: nothing was done.
    """
    match command:
        case PutTenant():
            return _put_tenant(connection, command)
        case DeleteTenant(name=name):
            return _delete_tenant(connection, change_log, name)
        case CreateToken(token=token, digest=digest):
            return _create_token(connection, token, digest)
        case RevokeToken(id=identifier):
            removed = connection.execute("DELETE FROM tokens WHERE id = ?", (identifier,)).rowcount
            if removed:
                _changed(connection)
            return Applied(removed=removed)
        case DisableTokens():
            return _disable_tokens(connection)


def remove_expired_tokens(connection: sqlite3.Connection, now: float) -> None:
    """Remove the tokens that expired long before ``now`` (Unix seconds). Part of a sweep."""
    if connection.execute(_REMOVE_EXPIRED, (now - EXPIRED_TOKENS_KEPT_SECONDS,)).rowcount:
        _changed(connection)


def _put_tenant(connection: sqlite3.Connection, command: PutTenant) -> Applied:
    before = connection.execute(_TENANT, (command.name,)).fetchone()
    limits = new_limits(command, before)
    if limits == before:
        return Applied()
    connection.execute(_PUT_TENANT, (command.name, *limits))
    _changed(connection)
    return Applied(created=before is None)


def _delete_tenant(connection: sqlite3.Connection, change_log: ChangeLog, name: str) -> Applied:
    check_deletable(name)
    if not connection.execute("DELETE FROM tenants WHERE name = ?", (name,)).rowcount:
        return Applied()
    # Hidden at once, however many entries it has: a new tenant of this name begins empty.
    hide_range(connection, change_log, Scope(name).start)
    connection.execute("DELETE FROM tokens WHERE tenant = ?", (name,))
    _changed(connection)
    return Applied(removed=1)


def _create_token(connection: sqlite3.Connection, token: Token, digest: bytes) -> Applied:
    if token.tenant is not None:
        if connection.execute(_TENANT, (token.tenant,)).fetchone() is None:
            raise NoSuchTenant(token.tenant)
    if not connection.execute(_PUT_TOKEN, (digest, *token_row(token))).rowcount:
        raise token_exists()
    connection.execute("UPDATE access SET closed = 1")
    _changed(connection)
    return Applied(created=True)


def _disable_tokens(connection: sqlite3.Connection) -> Applied:
    removed = connection.execute("DELETE FROM tokens").rowcount
    opened = connection.execute("UPDATE access SET closed = 0 WHERE closed").rowcount
    if removed or opened:
        _changed(connection)
    return Applied(removed=removed)


def _changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE access SET version = version + 1")
