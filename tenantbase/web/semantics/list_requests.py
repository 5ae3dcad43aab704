"""What a request for a list asks for: its query parameters, and the cursors among them."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final

import msgspec

from tenantbase.entry import check_key
from tenantbase.errors import InvalidRequest
from tenantbase.listing import KeyRange, Place
from tenantbase.web.semantics.targets import integer

PARAMETERS: Final = frozenset(
    {"prefix", "limit", "cursor", "fields", "delimiter", "start", "end", "order"}
)
"""The query parameters of the routes that list entries."""

_DESCENDING: Final = {None: False, "asc": False, "desc": True}
_FIELDS: Final = (None, "key", "meta")
# The first byte of a cursor says what its text is.
_AFTER_KEY: Final = b"\x01"
_AFTER_FOLDED: Final = b"\x02"


class ListRequest(msgspec.Struct, frozen=True):
    """A list that a client asks for.

    Attributes:
        wanted: the range of plain keys.
        after: where the list continues; None: it begins.
        limit: the most items, not checked yet; None: all of them.
        values: whether items are whole entries.
        keys_only: whether items are keys alone; otherwise, without values, they are metadata.
    """

    wanted: KeyRange
    after: Place | None
    limit: int | None
    values: bool
    keys_only: bool


def list_request(parameters: Mapping[str, str]) -> ListRequest:
    """The list that these query parameters ask for.

    Raises:
        InvalidRequest: they ask for an impossible list.
    """
    fields, order = parameters.get("fields"), parameters.get("order")
    limit = integer(parameters, "limit")
    if fields not in _FIELDS:
        raise InvalidRequest("fields is key or meta, or is left out", "fields")
    if order not in _DESCENDING:
        raise InvalidRequest("order is asc or desc", "order")
    wanted = KeyRange(
        parameters.get("prefix", ""),
        parameters.get("start", ""),
        parameters.get("end", ""),
        _DESCENDING[order],
        parameters.get("delimiter", ""),
    )
    after = place_of_cursor(parameters.get("cursor"))
    return ListRequest(wanted, after, limit, fields is None, fields == "key")


def cursor_of(place: Place) -> str:
    """The cursor for what comes after a place. It is opaque to clients."""
    kind = _AFTER_FOLDED if place.folded else _AFTER_KEY
    return urlsafe_b64encode(kind + place.key.encode()).rstrip(b"=").decode()


def place_of_cursor(cursor: str | None) -> Place | None:
    """The place that a cursor follows; None for an empty one. Raises InvalidRequest."""
    if not cursor:
        return None  # from the start
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        decoded = urlsafe_b64decode(padded)
        place = Place(check_key(decoded[1:].decode()), decoded[:1] == _AFTER_FOLDED)
        if cursor_of(place) == cursor:
            return place
    except (ValueError, InvalidRequest):
        pass  # binascii.Error and UnicodeError are ValueErrors
    raise InvalidRequest("this is not a cursor from a list", "cursor")
