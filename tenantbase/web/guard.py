"""What is refused before any handler sees it: pages of the web that reach for a private service.

Everything here works on header values alone, so that whatever parses requests can use it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web

from tenantbase.web.problems import ContentEncoded, CrossOrigin, Misdirected, TransferEncoded
from tenantbase.web.settings import WebSettings

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST: Final = re.compile(r"(\[[0-9a-f:.]++\]|[^:\[\]@/?#\s]+?)\.?(?::[0-9]*+)?")
_END_OF_AUTHORITY: Final = re.compile("[/?#]")
_READABLE: Final = "ETag, X-Cache, Location, Retry-After, Content-Range, Accept-Ranges"
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
_SENDABLE: Final = (
    "Content-Type, Authorization, If-Match, If-None-Match, If-Range, Range, Last-Event-ID"
)
_PREFLIGHT_SECONDS: Final = "600"
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_EXCERPT: Final = 100  # characters of a header that are repeated in an error


class Guard:
    """The rules of ``contract.md``, "Safe from the start", for one server."""

    def __init__(self, settings: WebSettings) -> None:
        # On an address that others reach, any name may be right, unless the names are listed.
        self._checks_host = settings.loopback or bool(settings.allowed_hosts)
        self._allowed_hosts = frozenset(host.removesuffix(".") for host in settings.allowed_hosts)
        self._cors_origins = settings.cors_origins
        self._secure = settings.tls is not None
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
            Misdirected, CrossOrigin, ContentEncoded, TransferEncoded: it may not.
        """
        if self._checks_host:
            host = headers.get(hdrs.HOST)  # HTTP/1.0 may leave it out
            if host is not None and not self._may_be_host(host):
                raise _misdirected(host)
            if not target.startswith("/") and "://" in target:
                # The absolute form goes before Host (RFC 9112, section 3.2.2).
                authority = _END_OF_AUTHORITY.split(target.partition("://")[2], 1)[0]
                if not self._may_be_host(authority):
                    raise _misdirected(authority)
        transfer = headers.get(hdrs.TRANSFER_ENCODING)
        if transfer is not None and transfer.strip().lower() != "chunked":
            # RFC 9112, section 6.1. Only the chunks would be undone, and what is in them stored.
            raise TransferEncoded(
                f"the transfer coding {_excerpt(transfer)} is not supported; only chunked is"
            )
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
            if self._is_allowed(origin):
                return
            host = headers.get(hdrs.HOST, "")
            if not _is_origin_of(origin.lower(), host.lower(), self._secure):
                raise CrossOrigin(
                    f"a page of {_excerpt(origin)} may not write to {_excerpt(host)}: allow it with"
                    " --cors-origin or, if a proxy is in between, have it pass on Host as it came"
                )
        if headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
            raise CrossOrigin(
                "a page of another site may not write here: allow its origin with --cors-origin"
            )

    def _is_allowed(self, origin: str) -> bool:
        """Whether it is one of ``--cors-origin``."""
        if not self._cors_origins or "*" in origin:
            return False
        origin = origin.lower()
        base, _, port = origin.rpartition(":")
        any_port = f"{base if port.isascii() and port.isdecimal() else origin}:*"
        return origin in self._cors_origins or any_port in self._cors_origins

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
        if origin is not None and self._is_allowed(origin):
            cors[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            cors[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READABLE
        return cors

    def preflight(self, method: str, headers: Mapping[str, str]) -> web.Response | None:
        """The answer to a browser's question before it sends a request; None: it is none, or
        its origin is not one of ``--cors-origin``."""
        if method != "OPTIONS" or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in headers:
            return None
        if not self._is_allowed(headers.get(hdrs.ORIGIN, "")):
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _SENDABLE,
                hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
            },
        )


def _is_origin_of(origin: str, host: str, secure: bool) -> bool:
    """Whether the pages of ``host`` have this origin.

    The scheme may be a proxy's. With TLS it is never http: an attacker on the network can change
    a page that comes over plain HTTP.
    """
    scheme, _, authority = origin.partition("://")
    if secure and scheme != "https":
        return False
    # Browsers leave the scheme's own port out of both, some proxies add it to Host.
    return bool(authority) and authority == host.removesuffix(_DEFAULT_PORTS.get(scheme, ":"))


def _misdirected(host: str) -> Misdirected:
    return Misdirected(
        f"the host {_excerpt(host)} is not one of this server's: use localhost, or allow it with"
        " --allowed-host"
    )


def _excerpt(text: str) -> str:
    """What a client has sent, safe to be repeated: in quotes, in ASCII and not too long."""
    return ascii(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")
