"""Scoped keys: the tenant, a slash, and the key as clients write it.

Below ``database`` every key and every prefix is scoped: in commands, entries, cached items, the
change log, the feed and the tables. Tenants' keys can therefore not meet, and none of that code
needs to know what a tenant is. This module is the only one that puts the two together or takes
them apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NewType

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
        start: what every scoped key of this tenant begins with, and no other tenant's does.

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
