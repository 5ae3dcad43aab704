"""Who may use the database: tenants with their limits, and tokens.

A database is *open* until its first token is made, and every caller is an administrator. From then
on it is *closed*, even without any token left.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec


class TokenScope(enum.StrEnum):
    """What a token allows. ``WRITE`` includes ``READ``; ``ADMIN`` includes everything."""

    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    ADMIN = "admin"


class TenantLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a tenant; None means no limit.

    Attributes:
        max_entries: entries.
        max_bytes: of keys and values.
        max_requests_per_second: requests, over all workers of a server.
    """

    max_entries: int | None = None
    max_bytes: int | None = None
    max_requests_per_second: int | None = None


class Tenant(msgspec.Struct, frozen=True):
    """A tenant and its usage.

    Attributes:
        entries: how many it has. Expired entries count until they are removed.
        bytes: the size of their keys and values, as stored.
    """

    name: str
    entries: int
    bytes: int
    limits: TenantLimits


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret.

    Attributes:
        id: a UUID.
        name: a description, chosen by its creator.
        tenant, prefix: what a ``READ`` or ``WRITE`` token is limited to; the prefix is plain, None
            for the whole tenant. Tokens of other scopes have neither.
        created_at, expires_at: Unix seconds; None: it does not expire.
    """

    id: str
    name: str
    scope: TokenScope
    tenant: str | None
    prefix: str | None
    created_at: float
    expires_at: float | None


class Access(msgspec.Struct, frozen=True):
    """The state of a database's access control.

    Attributes:
        version: changes whenever anything here changes, except the tenants' usage.
        closed: whether every request needs a token.
        tenants: by name, in order of names; always includes ``default``.
        tokens: by the SHA-256 of the token, in order of creation, expired ones included.
    """

    version: int
    closed: bool
    tenants: Mapping[str, Tenant]
    tokens: Mapping[bytes, Token]
