"""The rules of commands on tenants and tokens, and the rows that databases keep of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from tenantbase.access import Access, Tenant, TenantLimits, Token
from tenantbase.commands import PutTenant
from tenantbase.errors import Damaged, InvalidRequest, TenantRequired
from tenantbase.scope import DEFAULT

# For a week, lists of tokens still show those that have expired, and so why a client is refused.
EXPIRED_TOKENS_KEPT_SECONDS: Final = 7 * 86_400

LIMIT_COLUMNS: Final = "max_entries, max_bytes, max_requests_per_second"
"""The columns of a tenant's limits, in the order of ``Limits``."""

TOKEN_COLUMNS: Final = "id, name, scope, tenant, prefix, created_at, expires_at"
"""The columns of a token besides its digest, in the order of ``token_row``."""

_LIMIT_FIELDS: Final = tuple(LIMIT_COLUMNS.split(", "))
_TOKEN_FIELDS: Final = tuple(TOKEN_COLUMNS.split(", "))

Limits = tuple[int | None, ...]


def new_limits(command: PutTenant, before: Limits | None) -> Limits:
    """A tenant's limits after a command; ``before``: None for a new tenant."""
    given = (command.max_entries, command.max_bytes, command.max_requests_per_second)
    return tuple(
        old if new is msgspec.UNSET else new
        for old, new in zip(before or (None, None, None), given, strict=True)
    )


def check_deletable(tenant: str) -> None:
    """Raises TenantRequired for a tenant that must always exist."""
    if tenant == DEFAULT.tenant:
        raise TenantRequired("the tenant 'default' cannot be deleted")


def token_exists() -> InvalidRequest:
    """The error for a new token that has the id or the digest of another."""
    return InvalidRequest("there is a token with this id or this secret", "id")


def token_row(token: Token) -> tuple[Any, ...]:
    """What is stored of a token besides its digest."""
    owner = (token.id, token.name, str(token.scope), token.tenant, token.prefix)
    return (*owner, token.created_at, token.expires_at)


def access_of(
    version: int, closed: bool, tenants: Iterable[Sequence[Any]], tokens: Iterable[Sequence[Any]]
) -> Access:
    """The tenants and tokens of a database.

    Args:
        tenants: rows of a name, entries, bytes and the limits.
        tokens: rows of a digest and what ``token_row`` gives.

    Raises:
        Damaged: a row has been changed from outside.
    """
    return Access(
        version,
        closed,
        {row[0]: tenant_of_row(row) for row in tenants},
        {digest: token_of_row(row) for digest, *row in tokens},
    )


def tenant_of_row(row: Sequence[Any]) -> Tenant:
    """A tenant from its name, entries, bytes and limits. Raises Damaged."""
    name, entries, size, *limits = row
    fields = dict(zip(_LIMIT_FIELDS, limits, strict=True))
    try:
        return Tenant(
            msgspec.convert(name, str),
            msgspec.convert(entries, int),
            msgspec.convert(size, int),
            msgspec.convert(fields, TenantLimits),
        )
    except msgspec.ValidationError as error:
        raise Damaged(f"tenant {name!r} is damaged: {error}") from error


def token_of_row(row: Sequence[Any]) -> Token:
    """A token from what ``token_row`` gives. Raises Damaged."""
    fields = dict(zip(_TOKEN_FIELDS, row, strict=True))
    try:
        return msgspec.convert(fields, Token)
    except msgspec.ValidationError as error:
        raise Damaged(f"token {fields['id']} is damaged, revoke it: {error}") from error
