"""Tenants and tokens: reading them, and the commands that change them."""

from __future__ import annotations

from typing import Final

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
from tenantbase.errors import NoSuchTenant
from tenantbase.interfaces.planning.access import (
    EXPIRED_TOKENS_KEPT_SECONDS,
    LIMIT_COLUMNS,
    TOKEN_COLUMNS,
    access_of,
    check_deletable,
    new_limits,
    token_exists,
    token_row,
)
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.transaction import Transaction
from tenantbase.scope import Scope

_STATE: Final = "SELECT access, closed FROM clock"
_TENANTS: Final = (
    f'SELECT name, entries, bytes, {LIMIT_COLUMNS} FROM tenants ORDER BY name COLLATE "C"'
)
_TENANT: Final = f"SELECT {LIMIT_COLUMNS} FROM tenants WHERE name = $1"
_PUT_TENANT: Final = f"""
    INSERT INTO tenants (name, entries, bytes, {LIMIT_COLUMNS}) VALUES ($1, 0, 0, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE SET max_entries = excluded.max_entries,
    max_bytes = excluded.max_bytes, max_requests_per_second = excluded.max_requests_per_second
"""
_TOKENS: Final = f"SELECT digest, {TOKEN_COLUMNS} FROM tokens ORDER BY number"
_PUT_TOKEN: Final = f"""
    INSERT INTO tokens (number, digest, {TOKEN_COLUMNS})
    VALUES ((SELECT coalesce(max(number), 0) + 1 FROM tokens), $1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT DO NOTHING RETURNING number
"""
_USAGE: Final = """
    SELECT name, entries, bytes, max_entries, max_bytes FROM tenants WHERE name = ANY($1::text[])
"""
_KNOWN: Final = """
    SELECT access, name, max_entries IS NOT NULL OR max_bytes IS NOT NULL
    FROM clock LEFT JOIN tenants ON true
"""


class KnownTenants:
    """The tenants that there are, and whether they have limits, as a node remembers them.

    Attributes:
        version: of the access state that this is true for; -1: none yet.
    """

    def __init__(self) -> None:
        self.version = -1
        self._limited: dict[str, bool] = {}

    async def read(self, connection: Connection) -> None:
        """Read them."""
        rows = await connection.fetch(_KNOWN)
        self.version = rows[0][0]
        self._limited = {name: limited for _, name, limited in rows}

    def limited(self, name: str) -> bool | None:
        """Whether a tenant has a limit for entries or bytes; None: there is no such tenant."""
        return self._limited.get(name)


async def read_usage(
    connection: Connection | Transaction, names: list[str]
) -> dict[str, TenantUsage | None]:
    """The usage of tenants."""
    found = {row[0]: TenantUsage(*row) for row in await connection.fetch(_USAGE, names)}
    return {name: found.get(name) for name in names}


async def read_access(connection: Connection) -> Access:
    """Everything, in the snapshot of the connection's transaction."""
    ((version, closed),) = await connection.fetch(_STATE)
    tenants = await connection.fetch(_TENANTS)
    return access_of(version, closed, tenants, await connection.fetch(_TOKENS))


async def administer(transaction: Transaction, command: AdminCommand) -> Applied:
    """Carry out a command on tenants or tokens.

    Raises:
        NoSuchTenant, TenantRequired, InvalidRequest: nothing was done.
    """
    match command:
        case PutTenant():
            return await _put_tenant(transaction, command)
        case DeleteTenant(name=name):
            return await _delete_tenant(transaction, name)
        case CreateToken(token=token, digest=digest):
            return await _create_token(transaction, token, digest)
        case RevokeToken(id=identifier):
            gone = await transaction.fetch(
                "DELETE FROM tokens WHERE id = $1 RETURNING 1", identifier
            )
            return _removed(transaction, len(gone))
        case DisableTokens():
            gone = await transaction.fetch("DELETE FROM tokens RETURNING 1")
            opened = await transaction.fetch(
                "UPDATE clock SET closed = false WHERE closed RETURNING 1"
            )
            transaction.access_changes += bool(gone or opened)
            return Applied(removed=len(gone))


async def remove_expired_tokens(transaction: Transaction) -> None:
    """Remove the tokens that expired long ago. Part of a sweep."""
    before = transaction.now - EXPIRED_TOKENS_KEPT_SECONDS
    gone = await transaction.fetch("DELETE FROM tokens WHERE expires_at <= $1 RETURNING 1", before)
    _removed(transaction, len(gone))


async def _put_tenant(transaction: Transaction, command: PutTenant) -> Applied:
    rows = await transaction.fetch(_TENANT, command.name)
    before = tuple(rows[0]) if rows else None
    limits = new_limits(command, before)
    if limits == before:
        return Applied()
    await transaction.fetch(_PUT_TENANT, command.name, *limits)
    transaction.access_changes += 1
    return Applied(created=before is None)


async def _delete_tenant(transaction: Transaction, name: str) -> Applied:
    check_deletable(name)
    if not await transaction.fetch("DELETE FROM tenants WHERE name = $1 RETURNING 1", name):
        return Applied()
    # Hidden at once, however many entries it has: a new tenant of this name begins empty.
    await transaction.hide_range(Scope(name).start)
    await transaction.fetch("DELETE FROM tokens WHERE tenant = $1", name)
    return _removed(transaction, 1)


async def _create_token(transaction: Transaction, token: Token, digest: bytes) -> Applied:
    if token.tenant is not None and not await transaction.fetch(_TENANT, token.tenant):
        raise NoSuchTenant(token.tenant)
    if not await transaction.fetch(_PUT_TOKEN, digest, *token_row(token)):
        raise token_exists()
    await transaction.fetch("UPDATE clock SET closed = true WHERE NOT closed")
    transaction.access_changes += 1
    return Applied(created=True)


def _removed(transaction: Transaction, count: int) -> Applied:
    transaction.access_changes += count > 0
    return Applied(removed=count)
