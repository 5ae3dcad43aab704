"""Cuts received data after requests that aiohttp's parser takes for the last of their connection.

If a request asks for an upgrade to a protocol that the parser does not know, the parser loses what
follows in the same piece, although the connection is never upgraded and HTTP/1.1 continues. If the
connection ends with a request, because it says ``Connection: close`` or is HTTP/1.0, the parser
rejects the request if anything follows it, although that must be ignored (RFC 9112, section 9.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Part of the head of such a request. It begins with a line break, because a search for fixed bytes is
# twenty times as fast, and bodies are searched, too.
_LAST: Final = re.compile(
    rb"\r\n(?:(?<= HTTP/1\.0\r\n)|upgrade:|connection:(?![ \t]*+keep-alive[ \t]*+\r\n))",
    re.IGNORECASE,
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*+([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


def pieces(data: bytes) -> Iterator[bytes]:
    """``data``, cut at least where such requests end. A request of unknown length is cut between head
    and body, which is enough.

    Further cuts are harmless, so searching is enough, without parsing.
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
