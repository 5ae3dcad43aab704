"""What is refused before any handler sees it: pages of the web that reach for a private service.

Everything here works on header values alone, so that whatever parses requests can use it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from tenantbase.web.problems import ContentEncoded, CrossOrigin, Misdirected
from tenantbase.web.settings import WebSettings

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]@/?#\s]+?)\.?(?::[0-9]*)?")
_READABLE: Final = "ETag, X-Cache, Location, Retry-After, Content-Range, Accept-Ranges"
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
_SENDABLE: Final = (
    "Content-Type, Authorization, If-Match, If-None-Match, If-Range, Range, Last-Event-ID"
)
_PREFLIGHT_SECONDS: Final = "600"


class Guard:
    """The rules of ``contract.md``, "Safe from the start", for one server."""

    def __init__(self, settings: WebSettings) -> None:
        self._loopback = settings.loopback
        self._allowed_hosts = settings.allowed_hosts
        self._cors_origins = settings.cors_origins
        self._may_be_host = lru_cache(maxsize=256)(self._is_host_of_ours)

    @property
    def has_cors(self) -> bool:
        """Whether any origin may see answers."""
        return bool(self._cors_origins)

    def check(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Return if the request may go on.

        Args:
            target: the request target as it came.
            headers: case-insensitive.

        Raises:
            Misdirected, CrossOrigin, ContentEncoded: it may not.
        """
        if self._loopback:
            host = headers.get(hdrs.HOST)  # HTTP/1.0 may leave it out
            if host is not None and not self._may_be_host(host):
                raise _misdirected()
            if not target.startswith("/") and "://" in target:
                # The absolute form goes before Host (RFC 9112, section 3.2.2).
                if not self._may_be_host(urlsplit(target).netloc):
                    raise _misdirected()
        coding = headers.get(hdrs.CONTENT_ENCODING)
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            raise ContentEncoded(
                "send the body as it is, without a content encoding",
                {hdrs.ACCEPT_ENCODING: "identity"},
            )
        if method not in SAFE_METHODS:
            self._check_origin(headers)

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get(hdrs.ORIGIN)
        if origin is not None:
            if origin.lower() in self._cors_origins:
                return
            _, _, authority = origin.lower().partition("://")
            if not authority or authority != headers.get(hdrs.HOST, "").lower():
                raise CrossOrigin("this origin may not write here")
        if headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
            raise CrossOrigin("another site may not write here")

    def _is_host_of_ours(self, host: str) -> bool:
        host = host.strip().lower()
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1]
        if name == "localhost" or name in self._allowed_hosts or host in self._allowed_hosts:
            return True
        bare = name.strip("[]")
        if bare in self._allowed_hosts:
            return True
        try:
            return ipaddress.ip_address(bare).is_loopback
        except ValueError:
            return False

    def may_see(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The CORS headers of an answer to a request with these headers."""
        cors: dict[str, str] = {}
        origin = headers.get(hdrs.ORIGIN)
        if origin is not None and origin.lower() in self._cors_origins:
            cors[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            cors[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READABLE
        return cors

    def preflight(self, method: str, headers: Mapping[str, str]) -> web.Response | None:
        """The answer to a browser's question before it sends a request; None: it is none, or
        its origin is not one of ``--cors-origin``."""
        if method != "OPTIONS" or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in headers:
            return None
        if headers.get(hdrs.ORIGIN, "").lower() not in self._cors_origins:
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _SENDABLE,
                hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
            },
        )


def _misdirected() -> Misdirected:
    return Misdirected(
        "this host is not one of this server's: use localhost, or start it with --allowed-host"
    )
