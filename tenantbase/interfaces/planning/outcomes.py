"""What a command that names its key makes of an entry."""

from __future__ import annotations

import re
from typing import Final

from tenantbase.commands import Applied, Delete, KeyCommand, Set
from tenantbase.entry import JSON, Entry, is_json
from tenantbase.errors import InvalidRequest, WrongType
from tenantbase.interfaces.planning.identifiers import new_id
from tenantbase.scope import ScopedKey, plain_key

MAX_DIGITS: Final = 1_000
_TOO_LARGE: Final = 10**MAX_DIGITS
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_WHITESPACE: Final = b" \t\n\r"  # what JSON allows around a value (RFC 8259, section 2)


def outcome(command: KeyCommand, before: Entry | None, version: int) -> Applied:
    """The result of a command for the current entry."""
    if isinstance(command, Delete):
        removed = 0 if before is None else 1
        return Applied(removed=removed, before=before if command.returned else None)
    content_type, expires_at = JSON, command.expires_at
    if isinstance(command, Set):
        if before is None:
            return created(command, new_id(), version)
        value, content_type = command.value, command.content_type
        if command.keep_expiry:
            expires_at = before.expires_at
    elif before is None:
        value = _sum(command.initial, command.by)
    else:
        value, content_type = _sum(_integer(before), command.by), before.content_type
        expires_at = before.expires_at if expires_at is None else expires_at
    identifier = new_id() if before is None else before.id
    return Applied(
        entry=Entry(ScopedKey(command.key), value, content_type, identifier, version, expires_at),
        created=before is None,
    )


def created(command: Set, identifier: str, version: int) -> Applied:
    """The result of setting an absent key."""
    key, expires_at = ScopedKey(command.key), command.expires_at
    return Applied(
        Entry(key, command.value, command.content_type, identifier, version, expires_at), True
    )


def _integer(entry: Entry) -> int:
    text = entry.value.strip(_WHITESPACE)
    if not is_json(entry.content_type) or _INTEGER.fullmatch(text) is None:
        raise WrongType(f"the value of key {plain_key(entry.key)!r} is not an integer")
    if len(text.lstrip(b"-")) > MAX_DIGITS:
        raise WrongType(
            f"the integer of key {plain_key(entry.key)!r} has more than {MAX_DIGITS:,} digits"
        )
    return int(text)


def _sum(number: int, by: int) -> bytes:
    result = number + by
    # Compared as numbers: Python refuses to print very long ones.
    if abs(result) >= _TOO_LARGE:
        raise InvalidRequest(f"the result would have more than {MAX_DIGITS:,} digits", "by")
    return b"%d" % result
