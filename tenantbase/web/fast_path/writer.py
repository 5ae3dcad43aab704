"""Answers as bytes, as aiohttp sends them: for connections that are not aiohttp's."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Final, cast

from aiohttp import web

from tenantbase.documents import applied_json, entry_json
from tenantbase.entry import Entry
from tenantbase.lookup import CacheStatus
from tenantbase.interfaces.store import Applied
from tenantbase.web.lifecycle import Lifecycle

# The heads that nearly all answers have, with the headers of ``answers.entry_headers`` and
# ``written_headers``: to put those together anew for each answer takes as long as all else here.
_VALUE: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/json\r\n"
    b'ETag: "%d"\r\n'
    b"X-Cache: %b\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Content-Length: %d\r\n"
    b"%b\r\n%b"
)
_WRITTEN: Final = _VALUE.replace(b"X-Cache: %b\r\n", b"")


class ResponseWriter:
    """Renders answers.

    Args:
        server: their ``Server`` header.
        vary_origin: whether other origins get other answers.
    """

    def __init__(self, lifecycle: Lifecycle, server: str, *, vary_origin: bool = False) -> None:
        self._lifecycle = lifecycle
        self._last = f"Server: {server}\r\n" + ("Vary: Origin\r\n" if vary_origin else "")
        self._fresh_until = 0.0
        self._last_fields = b""

    def value(self, entry: Entry, cache_status: CacheStatus) -> bytes:
        """The answer to ``get-value``."""
        body = entry_json(entry)
        return _VALUE % (entry.version, cache_status.encode(), len(body), self._ending(), body)

    def written(self, applied: Applied) -> bytes:
        """The answer to ``set-value``."""
        assert applied.entry is not None
        body = applied_json(applied)
        return _WRITTEN % (applied.entry.version, len(body), self._ending(), body)

    def answer(self, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Any answer that has a body of its own."""
        fields = map(": ".join, headers.items())
        # A 204 has neither a body nor a length (RFC 9110, section 8.6).
        length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
        head = (f"HTTP/1.1 {status} {reason}", *fields, length)
        return b"%b%b\r\n%b" % ("\r\n".join(head).encode(), self._ending(), body)

    def response(self, response: web.Response) -> bytes:
        """An answer that was made for aiohttp."""
        body = cast(bytes, response.body or b"")
        return self.answer(response.status, response.reason, response.headers, body)

    def _ending(self) -> bytes:
        """The header fields that come last."""
        now = time.time()
        if not self._fresh_until - 1 <= now < self._fresh_until:  # a clock can be set back
            self._fresh_until = math.floor(now) + 1.0
            date = formatdate(now, usegmt=True)
            self._last_fields = f"Date: {date}\r\n{self._last}".encode()
        if self._lifecycle.draining:
            return self._last_fields + b"Connection: close\r\n"
        return self._last_fields
