"""Requests to upgrade the connection: it never is, so HTTP/1.1 continues after them.

If more data follow such a request in the same piece, aiohttp's parser drops them unless it knows
the protocol. So pieces are cut where the request ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*+([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


def pieces(data: bytes) -> Iterator[bytes]:
    """``data``, cut at least where a request that asks for an upgrade ends.

    A cut anywhere else is harmless, so a search suffices and the text need not be parsed.
    """
    at = 0
    while asked := _UPGRADE.search(data, at):
        end = data.find(_END, asked.start()) + len(_END)
        if end < len(_END):
            break
        begin = max(at, data.rfind(_END, at, asked.start()))
        length = _LENGTH.search(data, begin, end)
        yield data[at:end]
        at = end
        if length is not None and int(length[1]):
            yield data[at : at + int(length[1])]
            at = min(len(data), at + int(length[1]))
    if at < len(data) or not data:
        yield data[at:]
