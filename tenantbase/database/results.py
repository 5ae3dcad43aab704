"""Results of the policy, which have scoped keys, as results with plain keys."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from msgspec.structs import replace

from tenantbase.commands import Applied
from tenantbase.entry import Entry
from tenantbase.lookup import Lookup
from tenantbase.scope import plain_key


def plain_entry(entry: Entry) -> Entry:
    """The same entry, with its plain key."""
    return replace(entry, key=plain_key(entry.key))


def plain_lookup(found: Lookup, key: str) -> Lookup:
    """What was found at a scoped key, with the plain key that it was asked for by."""
    entry = found.entry
    if entry is None:
        return found
    return Lookup(replace(entry, key=key), found.cache_status)


def plain_applied(applied: Applied) -> Applied:
    """What a command did, with the plain key in its entry."""
    entry = applied.entry
    if entry is None:
        return applied
    return replace(applied, entry=plain_entry(entry))


# These wait, so that methods that write need not: their frames would hold the value meanwhile.


async def one(written: Awaitable[tuple[Applied, ...]]) -> Applied:
    """What the only command of a transaction did."""
    (applied,) = await written
    return plain_applied(applied)


async def many(written: Awaitable[tuple[Applied, ...]]) -> Sequence[Applied]:
    """What each command of a transaction did."""
    return [plain_applied(applied) for applied in await written]


async def removed(written: Awaitable[tuple[Applied, ...]]) -> int:
    """How many entries a transaction removed."""
    return sum(applied.removed for applied in await written)
