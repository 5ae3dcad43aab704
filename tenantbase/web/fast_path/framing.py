"""Where a request ends, for requests whose head says so plainly (RFC 9112, section 6).

Stricter than any HTTP parser: a head that this accepts has one length only, whoever reads it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_MAX_HEAD_BYTES: Final = 65_536
_LINE: Final = re.compile(rb"[A-Z]{1,16} [\x21-\x7e\x80-\xff]{1,16384} HTTP/1\.1")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class Framed(NamedTuple):
    """The head of a request.

    Attributes:
        head_end: where it ends in the data.
        body_length: how many bytes follow it.
    """

    head_end: int
    body_length: int


def frame(data: bytes, start: int = 0) -> Framed | None:
    """The frame of the request at ``start``.

    None: its head is not complete, or does not say plainly where the request ends.
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
        # A coding has an end of its own; after other connection options no request may follow.
        if name == b"transfer-encoding" or (
            name == b"connection" and value.lower() != b"keep-alive"
        ):
            return None
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                return None
            length = int(value)
    return Framed(end + 4, length or 0)
