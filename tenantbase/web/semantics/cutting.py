"""Cuts received data after requests that aiohttp's parser takes for the last of their connection.

What follows in the same piece is lost, if the request asks for an upgrade and the parser does not
know the protocol. (The connection is never upgraded, so HTTP/1.1 continues.) And if the connection
ends with the request, because it says ``Connection: close`` or is HTTP/1.0, anything behind it makes
the parser reject the request as well. But what follows such a request is to be ignored (RFC 9112,
section 9.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Part of the head of such a request.
_LAST: Final = re.compile(
    rb"\r\nupgrade:| HTTP/1\.0\r\n|\r\nconnection:(?![ \t]*+keep-alive[ \t]*+\r\n)", re.IGNORECASE
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*+([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


def pieces(data: bytes) -> Iterator[bytes]:
    """``data``, cut at least where such requests end. If its length is not known, the request is
    cut between head and body, which suffices.

    A cut anywhere else is harmless, so a search suffices and the text need not be parsed.
    """
    at = 0
    while last := _LAST.search(data, at):
        end = data.find(_END, last.start()) + len(_END)
        if end < len(_END):
            break
        begin = max(at, data.rfind(_END, at, last.start()))
        length = _LENGTH.search(data, begin, end)
        yield data[at:end]
        at = end
        if length is not None and int(length[1]):
            yield data[at : at + int(length[1])]
            at = min(len(data), at + int(length[1]))
    if at < len(data) or not data:
        yield data[at:]
