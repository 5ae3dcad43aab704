"""Refuses requests before a handler runs, such as those of web pages that attack a private service.

All checks work on header values alone, so both HTTP paths can use them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from aiohttp import hdrs

from tenantbase.web.answer import Answer
from tenantbase.web.forwarding import Proxies
from tenantbase.web.problems import ContentEncoded, CrossOrigin, Misdirected, TransferEncoded
from tenantbase.web.settings import WebSettings

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST: Final = re.compile(r"(\[[0-9a-f:.]++\]|[^:\[\]@/?#\s]+?)\.?(?::[0-9]*+)?")
_END_OF_AUTHORITY: Final = re.compile("[/?#]")
_READABLE: Final = (
    "ETag, X-Cache, Location, Retry-After, Content-Range, Accept-Ranges, WWW-Authenticate, RateLimit,"
    " RateLimit-Policy, X-Request-ID"
)
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
_SENDABLE: Final = (
    "Content-Type, Authorization, X-Tenant, If-Match, If-None-Match, If-Range, Range, Last-Event-ID,"
    " X-Request-ID, traceparent, tracestate"
)
_PREFLIGHT_SECONDS: Final = "600"
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_EXCERPT_CHARACTERS: Final = 100  # how much of a header an error quotes


class Guard:
    """The rules for one server: which hosts, origins and codings it accepts."""

    def __init__(self, settings: WebSettings) -> None:
        # On an address that other machines reach, any name may be valid, unless names are listed.
        self._checks_host = settings.loopback or bool(settings.allowed_hosts)
        self._allowed_hosts = frozenset(host.removesuffix(".") for host in settings.allowed_hosts)
        self._cors_origins = settings.cors_origins
        self._scheme = None if settings.tls is None else "https"  # None: a proxy may add TLS
        self.proxies = Proxies(settings.trusted_proxies)
        self._may_be_host = lru_cache(maxsize=256)(self._is_host_of_ours)

    @property
    def has_cors(self) -> bool:
        """Whether pages of any other origin may read answers."""
        return bool(self._cors_origins)

    def check(
        self, method: str, target: str, headers: Mapping[str, str], scheme: str | None = None
    ) -> None:
        """Raise unless the request is acceptable.

        Args:
            target: the request target as received.
            headers: case-insensitive.
            scheme: of the client's connection, if a trusted proxy says it.

        Raises: Misdirected, CrossOrigin, ContentEncoded, TransferEncoded: it is not.
        """
        if self._checks_host:
            host = headers.get(hdrs.HOST)  # optional in HTTP/1.0
            if host is not None and not self._may_be_host(host):
                raise _misdirected(host)
            if not target.startswith("/") and "://" in target:
                # The absolute form takes precedence over Host (RFC 9112, section 3.2.2).
                authority = _END_OF_AUTHORITY.split(target.partition("://")[2], 1)[0]
                if not self._may_be_host(authority):
                    raise _misdirected(authority)
        transfer = headers.get(hdrs.TRANSFER_ENCODING)
        if transfer is not None and transfer.strip().lower() != "chunked":
            # RFC 9112, section 6.1. Only the chunks would be decoded, and their content stored as is.
            raise TransferEncoded(
                f"the transfer coding {_excerpt(transfer)} is not supported; only chunked is"
            )
        coding = headers.get(hdrs.CONTENT_ENCODING)
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            raise ContentEncoded(
                "send the body without a content encoding",
                {hdrs.ACCEPT_ENCODING: "identity"},
            )
        if method not in SAFE_METHODS:
            self._check_origin(headers, scheme or self._scheme)

    def _check_origin(self, headers: Mapping[str, str], scheme: str | None) -> None:
        origin = headers.get(hdrs.ORIGIN)
        if origin is not None:
            if self._is_allowed(origin):
                return
            host = headers.get(hdrs.HOST, "")
            if not _is_origin_of(origin.lower(), host.lower(), scheme):
                raise CrossOrigin(
                    f"a page of {_excerpt(origin)} may not write to {_excerpt(host)}: allow it with"
                    " --cors-origin or, behind a proxy, have the proxy pass Host on unchanged"
                )
        if headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
            raise CrossOrigin(
                "a page of another site may not write here: allow its origin with --cors-origin"
            )

    def _is_allowed(self, origin: str) -> bool:
        """Whether this origin is one of ``--cors-origin``."""
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
        """The CORS headers of the answer to a request with these headers."""
        cors: dict[str, str] = {}
        origin = headers.get(hdrs.ORIGIN)
        if origin is not None and self._is_allowed(origin):
            cors[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            cors[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READABLE
        return cors

    def preflight(self, method: str, headers: Mapping[str, str]) -> Answer | None:
        """The answer to a CORS preflight; None if this is not one, or its origin is not allowed."""
        if method != "OPTIONS" or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in headers:
            return None
        if not self._is_allowed(headers.get(hdrs.ORIGIN, "")):
            return None
        return Answer(
            204,
            {
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _SENDABLE,
                hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
            },
        )


def _is_origin_of(origin: str, host: str, expected: str | None) -> bool:
    """Whether pages of ``host`` have this origin.

    Without an expected scheme it may be a proxy's. With TLS it must be https: an attacker on the
    network can change a page that was loaded over plain HTTP.
    """
    scheme, _, authority = origin.partition("://")
    if expected is not None and scheme != expected:
        return False
    # Browsers omit the scheme's default port from both; some proxies add it to Host.
    return bool(authority) and authority == host.removesuffix(_DEFAULT_PORTS.get(scheme, ":"))


def _misdirected(host: str) -> Misdirected:
    return Misdirected(
        f"the host {_excerpt(host)} is not one of this server's: use localhost, or allow it with"
        " --allowed-host"
    )


def _excerpt(text: str) -> str:
    """Text from a client, made safe for an error message: quoted, ASCII, and short."""
    return ascii(text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + "...")
