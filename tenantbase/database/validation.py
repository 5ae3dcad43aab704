"""From outside input to commands: every rule that a write must satisfy, each in one place.

All functions raise InvalidRequest, or TooLarge, with the name of the offending field; those that
take a scope raise Forbidden if it does not include the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tenantbase.commands import Condition, Set
from tenantbase.entry import JSON, OCTETS, TEXT, check_key, check_keys, expiry, is_json
from tenantbase.errors import Forbidden, InvalidRequest, TooLarge
from tenantbase.json_requests import SetValue, content
from tenantbase.json_text import check_depths, check_json
from tenantbase.media_types import check_media_type
from tenantbase.plain_sets import PlainSets
from tenantbase.scope import Scope, ScopedKey

_DEFAULT_TYPES: Final = {None: JSON, "base64": OCTETS, "utf-8": TEXT}


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A valid write that lacks only its value, which may still be on its way."""

    key: ScopedKey
    content_type: str
    expires_at: float | None
    condition: Condition | None
    keep_expiry: bool


def draft(
    scope: Scope,
    key: str,
    content_type: str,
    now: float,
    *,
    ttl: float | None,
    expires_at: float | None,
    keep_ttl: bool | None,
    condition: Condition | None,
    content_type_field: str = "content_type",
) -> Draft:
    """Check everything about a write but its value.

    Args:
        now: the current time, in Unix seconds.
        content_type_field: what the caller's clients call the content type.
    """
    return Draft(
        scope.to_write(check_key(key)),
        check_media_type(content_type, content_type_field),
        expiry(now, ttl, expires_at, keep_ttl),
        condition,
        bool(keep_ttl),
    )


def completed(draft: Draft, value: bytes, max_value_bytes: int, *, json_checked: bool) -> Set:
    """The command that stores this value.

    Args:
        json_checked: the value is known to be JSON that may be stored.
    """
    check_size(value, max_value_bytes)
    if not json_checked and is_json(draft.content_type):
        check_json(value, "value")
    return Set(
        draft.key,
        value,
        draft.content_type,
        draft.expires_at,
        draft.condition,
        draft.keep_expiry,
    )


def set_command(
    scope: Scope,
    given: SetValue,
    now: float,
    max_value_bytes: int,
    *,
    condition: Condition | None,
    value: bytes | InvalidRequest | None,
) -> Set:
    """The command for a JSON body or a line of an import.

    Args:
        now: the current time, in Unix seconds.
        condition: the request's condition, besides the entry's own fields.
        value: the bytes to store, or the error in them, if already known.
    """
    content_type = given.content_type
    if content_type is None:
        content_type = _DEFAULT_TYPES[given.encoding]
    else:
        check_media_type(content_type, "content_type")
    if value is None:
        value = content(given)
    elif isinstance(value, InvalidRequest):
        raise value
    check_size(value, max_value_bytes)
    return Set(
        scope.to_write(check_key(given.key)),
        value,
        content_type,
        expiry(now, given.ttl, given.expires_at, given.keep_ttl),
        combined(condition, given.if_version, bool(given.if_absent)),
        bool(given.keep_ttl),
    )


def set_commands(
    scope: Scope, given: Sequence[SetValue], now: float, max_value_bytes: int
) -> Sequence[Set]:
    """As ``set_command`` for each of many entries. Raises for the first that is invalid."""

    def alone(each: SetValue) -> Set:
        return set_command(scope, each, now, max_value_bytes, condition=None, value=None)

    plain = [each for each in given if each.plain]
    try:
        commands = _plain_commands(scope, plain, max_value_bytes)
    except (InvalidRequest, Forbidden):
        return [alone(each) for each in given]
    if len(plain) == len(given):
        return commands
    done = iter(commands)
    return [next(done) if each.plain else alone(each) for each in given]


def _plain_commands(scope: Scope, given: Sequence[SetValue], max_value_bytes: int) -> Sequence[Set]:
    """The commands for entries that are plain: the same rules, each checked for all of them at once."""
    keys = scope.keys_to_write(check_keys([each.key for each in given], "key"))
    values = [bytes(each.value) for each in given]
    check_size(max(values, key=len, default=b""), max_value_bytes)
    check_depths(values)
    if len(keys) == len(given):
        return PlainSets(list(keys.values()), values)
    return [Set(keys[each.key], value, JSON) for each, value in zip(given, values, strict=True)]


def check_size(value: bytes, max_value_bytes: int) -> None:
    """Check that a value of this size may be stored. Raises TooLarge."""
    if len(value) > max_value_bytes:
        raise TooLarge(f"a value has at most {max_value_bytes:,} bytes", "value")


def combined(
    condition: Condition | None, if_version: int | None, if_absent: bool
) -> Condition | None:
    """A condition together with ``if_version`` and ``if_absent``: all of them must hold."""
    if if_version is None and not if_absent:
        return condition
    base = condition or Condition()
    versions = base.versions
    if if_version is not None:
        wanted = frozenset({if_version})
        versions = wanted if versions is None else versions & wanted
    return Condition(
        absent=base.absent or if_absent,
        exists=base.exists,
        versions=versions,
        not_versions=base.not_versions,
    )
