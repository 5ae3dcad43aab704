"""Scoped keys: the tenant, a slash, and the key as clients write it.

Below ``database`` every key and every prefix is scoped: in commands, entries, cached items, the
change log, the feed and the tables. Tenants' keys can therefore not meet, and none of that code
needs to know what a tenant is. This module is the only one that puts the two together or takes
them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NewType, cast

from tenantbase.errors import Forbidden, InvalidRequest

ScopedKey = NewType("ScopedKey", str)
"""``tenant + "/" + key``. A tenant's name has no slash, so the first one ends it."""

_SEPARATOR: Final = "/"
_TENANT: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}")


def check_tenant(name: str, field: str = "tenant") -> str:
    """Return ``name`` if it can be the name of a tenant: 1 to 64 of a few characters.

    Raises:
        InvalidRequest: it cannot.
    """
    if not _TENANT.fullmatch(name):
        raise InvalidRequest(
            "a tenant's name is 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit",
            field,
        )
    return name


class Scope:
    """The part of the database that an operation can reach: keys of one tenant, and what it may do.

    Args:
        tenant: its name, 1 to 64 of ``a``-``z``, ``0``-``9``, ``-`` and ``_``, beginning with a
            letter or digit.
        allowed: only keys that begin with this, as clients write it; empty: all of the tenant's.
        may_read, may_write: whether values may be read, and changed. Writing includes reading.

    Attributes:
        tenant: the name.
        start: the prefix of every scoped key of this tenant, and of no other tenant's.
        plain: the part of a scoped key that clients know: ``entry.key[scope.plain]``.
        reads_all, writes_all: every key of the tenant may be read, or written, so that a key need
            not be looked at.

    Raises:
        InvalidRequest: this cannot be the name of a tenant.
    """

    __slots__ = (
        "tenant",
        "start",
        "plain",
        "allowed",
        "may_read",
        "may_write",
        "reads_all",
        "writes_all",
    )

    def __init__(
        self,
        tenant: str = "default",
        *,
        allowed: str = "",
        may_read: bool = True,
        may_write: bool = True,
    ) -> None:
        self.tenant: Final = check_tenant(tenant)
        self.start: Final = tenant + _SEPARATOR
        self.plain: Final = slice(len(self.start), None)
        self.allowed: Final = allowed
        self.may_read: Final = may_read
        self.may_write: Final = may_write and may_read
        self.reads_all: Final = may_read and not allowed
        self.writes_all: Final = self.may_write and not allowed

    def key(self, key: str) -> ScopedKey:
        """The scoped form of a key, without a check of what the scope allows."""
        return ScopedKey(self.start + key)

    def keys(self, keys: Iterable[str]) -> dict[str, ScopedKey]:
        """Keys, each once and in order, with their scoped forms."""
        start = self.start
        return cast(dict[str, ScopedKey], {key: start + key for key in keys})

    def prefix(self, prefix: str) -> str:
        """The scoped form of a prefix. An empty one covers this tenant's keys, not all keys."""
        return self.start + prefix

    def to_read(self, key: str) -> ScopedKey:
        """The scoped form of a key to read. Raises Forbidden."""
        if not self.reads_all:
            self._check(self.may_read, key)
        return ScopedKey(self.start + key)

    def to_write(self, key: str) -> ScopedKey:
        """The scoped form of a key to change. Raises Forbidden."""
        if not self.writes_all:
            self._check(self.may_write, key)
        return ScopedKey(self.start + key)

    def keys_to_read(self, keys: Iterable[str]) -> dict[str, ScopedKey]:
        """As ``keys``, for keys to read. Raises Forbidden."""
        if not self.reads_all:
            keys = [self._check(self.may_read, key) for key in keys]
        return self.keys(keys)

    def keys_to_write(self, keys: Iterable[str]) -> dict[str, ScopedKey]:
        """As ``keys``, for keys to change. Raises Forbidden."""
        if not self.writes_all:
            keys = [self._check(self.may_write, key) for key in keys]
        return self.keys(keys)

    def prefix_to_read(self, prefix: str) -> str:
        """The scoped form of a prefix whose keys to read; empty: all that the scope includes.

        Raises Forbidden.
        """
        if not self.reads_all:
            prefix = self._check(self.may_read, prefix or self.allowed)
        return self.prefix(prefix)

    def prefix_to_write(self, prefix: str) -> str:
        """The scoped form of a prefix whose keys to change; empty: all that the scope includes.

        Raises Forbidden.
        """
        if not self.writes_all:
            prefix = self._check(self.may_write, prefix or self.allowed)
        return self.prefix(prefix)

    def _check(self, permitted: bool, text: str) -> str:
        if not permitted:
            raise Forbidden("the token's scope does not allow this")
        if not text.startswith(self.allowed):
            raise Forbidden("the token is for keys with its own prefix only")
        return text

    def __repr__(self) -> str:
        return f"Scope({self.tenant!r})"


DEFAULT: Final = Scope()
"""The tenant that always exists."""


def start_bytes(tenant: str) -> int:
    """The size of what a tenant's scoped keys begin with. Names of tenants are ASCII."""
    return len(tenant) + len(_SEPARATOR)


def plain_key(scoped: str) -> str:
    """The key of a scoped key, or the prefix of a scoped prefix, as clients write it."""
    return scoped.partition(_SEPARATOR)[2]


def tenant_of(scoped: str) -> str:
    """The name of the tenant that a scoped key belongs to."""
    return scoped.partition(_SEPARATOR)[0]


def tenants_of(ordered: Sequence[str]) -> set[str]:
    """The names of the tenants that scoped keys belong to, which are in order."""
    if not ordered:
        return set()
    name, separator, _ = ordered[0].partition(_SEPARATOR)
    start = name + _SEPARATOR
    # In that order, a tenant's keys are together.
    if separator and ordered[-1].startswith(start):
        return {name}
    return {tenant_of(key) for key in ordered}
