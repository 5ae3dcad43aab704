"""Where a request ends, if its head leaves no doubt (RFC 9112, section 6).

Stricter than an HTTP parser: every parser agrees on the length of a request accepted here.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_MAX_HEAD_BYTES: Final = 65_536
_LINE: Final = re.compile(rb"[A-Z]{1,16} [\x21-\x7e\x80-\xff]{1,16384} HTTP/1\.1")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class Framed(NamedTuple):
    """The bounds of a request.

    Attributes:
        head_end: where the head ends in the data.
        body_length: how many bytes of body follow.
    """

    head_end: int
    body_length: int


def frame(data: bytes, start: int = 0) -> Framed | None:
    """The bounds of the request at ``start``.

    None if its head is incomplete, or leaves any doubt about where the request ends.
    """
    end = data.find(b"\r\n\r\n", start, start + _MAX_HEAD_BYTES)
    if end < 0:
        return None
    line, *fields = data[start:end].split(b"\r\n")
    if not _LINE.fullmatch(line):
        return None
    length: int | None = None
    for text in fields:
        field = _FIELD.fullmatch(text)
        if field is None:
            return None
        name, value = field[1].lower(), field[2].strip(b" \t")
        # A transfer coding marks its own end. After an upgrade, what follows may not be a request.
        # What follows ``close`` is ignored (RFC 9112, section 9.6), so it must not be passed on.
        if name == b"transfer-encoding" or (
            name == b"connection" and value.lower() not in (b"keep-alive", b"close")
        ):
            return None
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
    return Framed(end + 4, length or 0)
