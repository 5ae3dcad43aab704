"""Turns results of the policy, which have scoped keys, into results with plain keys."""

from __future__ import annotations

from msgspec.structs import replace

from tenantbase.commands import Applied
from tenantbase.entry import Entry
from tenantbase.lookup import Lookup
from tenantbase.scope import plain_key


def plain_entry(entry: Entry) -> Entry:
    """The same entry, with its plain key."""
    return replace(entry, key=plain_key(entry.key))


def plain_lookup(found: Lookup, key: str) -> Lookup:
    """The same result, with the plain key of the request."""
    entry = found.entry
    if entry is None:
        return found
    return Lookup(replace(entry, key=key), found.cache_status)


def plain_applied(applied: Applied) -> Applied:
    """The same result, with the plain key in its entry."""
    entry = applied.entry
    if entry is None:
        return applied
    return replace(applied, entry=plain_entry(entry))
