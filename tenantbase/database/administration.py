"""The operations on tenants and tokens. The caller has made sure that they are an administrator's."""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Final

from msgspec import UNSET, UnsetType

from tenantbase.access import Tenant, Token, TokenScope
from tenantbase.auth.tokens import digest, new_secret
from tenantbase.coherence.policy import Cache
from tenantbase.commands import (
    AdminCommand,
    Applied,
    CreateToken,
    DeleteTenant,
    DisableTokens,
    PutTenant,
    RevokeToken,
)
from tenantbase.database.reader import Reader
from tenantbase.entry import MAX_KEY_BYTES, check_text, expiry
from tenantbase.errors import InvalidRequest, NoSuchTenant, TenantRequired
from tenantbase.scope import DEFAULT, check_tenant

MAX_NAME_CHARACTERS: Final = 128
"""Of a token's name."""
MAX_LIMIT: Final = (1 << 63) - 1
"""Of entries or bytes."""
MAX_RATE: Final = 1_000_000_000
"""Of requests per second."""

_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OWNED: Final = frozenset({TokenScope.READ, TokenScope.WRITE})  # belong to a tenant


class Administration(Reader):
    """The part of ``Database`` that is about tenants and tokens.

    All methods raise StoreError if the database cannot serve, and those that change something
    OutcomeUnknown if it may or may not have been done. An InvalidRequest names the field.
    """

    _cache: Cache

    async def put_tenant(
        self,
        name: str,
        *,
        max_entries: int | None | UnsetType = UNSET,
        max_bytes: int | None | UnsetType = UNSET,
        max_requests_per_second: int | None | UnsetType = UNSET,
    ) -> tuple[Tenant, bool]:
        """Create a tenant, or change its limits.

        Args:
            max_entries, max_bytes, max_requests_per_second: None: no limit. One that is UNSET stays
                as it is; a new tenant has no limit then.

        Returns: the tenant as it is now, and whether it is new.
        """
        check_tenant(name, "name")
        _check_limit("max_entries", max_entries, 0, MAX_LIMIT)
        _check_limit("max_bytes", max_bytes, 0, MAX_LIMIT)
        _check_limit("max_requests_per_second", max_requests_per_second, 1, MAX_RATE)
        command = PutTenant(name, max_entries, max_bytes, max_requests_per_second)
        applied = await self._administer(command)
        tenant = (await self.current_access()).tenants.get(name)
        if tenant is None:
            raise NoSuchTenant(name)  # another administrator has deleted it since
        return tenant, applied.created

    async def delete_tenant(self, name: str) -> bool:
        """Remove a tenant, its entries and its tokens. Returns: whether there was one.

        Raises:
            TenantRequired: it is ``default``.
        """
        if check_tenant(name, "name") == DEFAULT.tenant:
            raise TenantRequired(f"the tenant {name!r} always exists, and cannot be deleted")
        return bool((await self._administer(DeleteTenant(name))).removed)

    async def create_token(
        self,
        name: str,
        scope: TokenScope,
        tenant: str | None = None,
        prefix: str | None = None,
        ttl: float | None = None,
    ) -> tuple[Token, str]:
        """Make a token. The first one closes the database.

        Args:
            name: what it is for, for people.
            tenant, prefix: what a token to read or write is limited to; no tenant: ``default``; no
                prefix, or an empty one: the whole tenant. Tokens of other scopes have neither.
            ttl: seconds until it expires; None: it does not.

        Returns: the token, and its secret, which is nowhere else.

        Raises:
            NoSuchTenant: nothing was done.
        """
        if scope in _OWNED:
            tenant = check_tenant(DEFAULT.tenant if tenant is None else tenant)
            prefix = _checked_prefix(prefix) if prefix else None
        else:
            for field, given in (("tenant", tenant), ("prefix", prefix)):
                if given is not None:
                    raise InvalidRequest(f"a token with the scope {scope} has no {field}", field)
        now = self._cache.now()
        token = Token(
            id=str(uuid.uuid4()),
            name=_checked_name(name),
            scope=scope,
            tenant=tenant,
            prefix=prefix,
            created_at=now,
            expires_at=expiry(now, ttl, None),
        )
        secret = new_secret()
        await self._administer(CreateToken(token, digest(secret)))
        return token, secret

    async def revoke_token(self, id: str) -> bool:
        """Remove a token by its id. Returns: whether there was one."""
        if not _UUID.fullmatch(id):
            raise InvalidRequest("the id of a token is a UUID", "id")
        return bool((await self._administer(RevokeToken(id.lower()))).removed)

    async def disable_tokens(self) -> int:
        """Remove all tokens, and open the database to everyone. Returns: how many there were."""
        return (await self._administer(DisableTokens())).removed

    async def _administer(self, command: AdminCommand) -> Applied:
        (applied,) = await self._cache.write(command)
        return applied


def _check_limit(field: str, given: int | None | UnsetType, lowest: int, highest: int) -> None:
    if isinstance(given, int) and not lowest <= given <= highest:
        raise InvalidRequest(f"{field} is a number from {lowest} to {highest:,}, or null", field)


def _checked_name(name: str) -> str:
    check_text(name, "name")
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"a name has 1 to {MAX_NAME_CHARACTERS} characters", "name")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise InvalidRequest("a name has no control characters and no line breaks", "name")
    return name


def _checked_prefix(prefix: str) -> str:
    if len(check_text(prefix, "prefix").encode()) > MAX_KEY_BYTES:
        raise InvalidRequest(f"a prefix has at most {MAX_KEY_BYTES:,} bytes of UTF-8", "prefix")
    return prefix
