"""``Range`` requests (RFC 9110, section 14) for one range of bytes; a request for several gets the
whole value."""

from __future__ import annotations

import re
from typing import Final

from tenantbase.web.problems import RangeNotSatisfiable

_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)


def requested(header: str | None, size: int) -> slice | None:
    """The requested part of a representation of ``size`` bytes; None for all of it.

    A header that is malformed, has other units, or several ranges is ignored, as the RFC allows.

    Raises:
        RangeNotSatisfiable: the range begins after the last byte.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(
            f"the value has {size:,} bytes", {"Content-Range": f"bytes */{size}"}
        )
    return slice(start, end)
