"""The connections of a port that speaks TLS: their certificate, and the log of failed handshakes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final

from tenantbase.web.transport.connections import peer
from tenantbase.web.transport.tls_transport import TlsTransport

log = logging.getLogger("tenantbase.web")

HANDSHAKE_SECONDS: Final = 10.0
"""Timeout for a handshake; ``--keepalive-timeout`` applies if it is less."""

_LOG_INTERVAL_SECONDS: Final = 60.0  # between two lines about failed handshakes


class TlsContext:
    """The TLS configuration of new connections.

    Attributes:
        current: replaced when the certificates are reloaded. Open connections keep the old one.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.current = context


class TlsConnections:
    """Makes the connections of a port that speaks TLS.

    Args:
        connect: makes the protocol that gets the decrypted bytes.
        handshake_seconds: timeout for a handshake.
    """

    def __init__(
        self,
        context: TlsContext,
        connect: Callable[[], asyncio.Protocol],
        handshake_seconds: float,
    ) -> None:
        self._context = context
        self._connect = connect
        self._seconds = handshake_seconds
        self._failures = 0
        self._quiet_until = 0.0

    def __call__(self) -> TlsTransport:
        """The protocol of a new TCP connection."""
        return TlsTransport(self._context.current, self._connect(), self._seconds, self._failed)

    def _failed(self, transport: TlsTransport, reason: str) -> None:
        """Log failed handshakes, but not every one: a scanner or a wrong URL causes thousands."""
        self._failures += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            log.info(
                "the TLS handshake of %s failed: %s (%d failures since the last such line)",
                peer(transport),
                reason,
                self._failures,
            )
            self._failures = 0
