"""Scoped keys: the tenant, a slash, and the key as clients write it.

Below ``database`` every key and every prefix is scoped: in commands, entries, cached items, the
change log, the feed and the tables. So the keys of two tenants never collide, and none of that code
needs to know what a tenant is. Only this module joins a tenant and a key, or splits them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NewType, cast

from tenantbase.errors import InvalidRequest

ScopedKey = NewType("ScopedKey", str)
"""``tenant + "/" + key``. A tenant's name has no slash, so the first one ends it."""

_SEPARATOR: Final = "/"
_TENANT: Final = re.compile("[a-z0-9][a-z0-9_-]{0,63}")


class Scope:
    """The part of the database that an operation can reach: the keys of one tenant.

    Args:
        tenant: its name, 1 to 64 of ``a``-``z``, ``0``-``9``, ``-`` and ``_``, beginning with a
            letter or digit.

    Attributes:
        tenant: the name.
        start: the prefix of every scoped key of this tenant, and of no other tenant's.

    Raises:
        InvalidRequest: this cannot be the name of a tenant.
    """

    __slots__ = ("tenant", "start")

    def __init__(self, tenant: str = "default") -> None:
        if not _TENANT.fullmatch(tenant):
            raise InvalidRequest(
                "a tenant's name is 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit",
                "tenant",
            )
        self.tenant: Final = tenant
        self.start: Final = tenant + _SEPARATOR

    def key(self, key: str) -> ScopedKey:
        """The scoped form of a key."""
        return ScopedKey(self.start + key)

    def keys(self, keys: Iterable[str]) -> dict[str, ScopedKey]:
        """Keys, each once and in order, with their scoped forms."""
        start = self.start
        return cast(dict[str, ScopedKey], {key: start + key for key in keys})

    def prefix(self, prefix: str) -> str:
        """The scoped form of a prefix. An empty one covers this tenant's keys, not all keys."""
        return self.start + prefix

    def __repr__(self) -> str:
        return f"Scope({self.tenant!r})"


DEFAULT: Final = Scope()
"""The tenant that always exists."""


def plain_key(scoped: str) -> str:
    """The key of a scoped key, or the prefix of a scoped prefix, as clients write it."""
    return scoped.partition(_SEPARATOR)[2]


def tenant_of(scoped: str) -> str:
    """The name of the tenant that a scoped key belongs to."""
    return scoped.partition(_SEPARATOR)[0]
