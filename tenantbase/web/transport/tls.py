"""The connections of a port that speaks TLS: with which certificate, and what is said of failures."""

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
"""A client must have finished the handshake by then; less if ``--keepalive-timeout`` is."""

_QUIET_SECONDS: Final = 60.0  # between two lines in the log about failed handshakes


class TlsContext:
    """The TLS configuration that the next connection begins with.

    Attributes:
        current: replaced when the certificates are renewed. Connections that have begun keep theirs.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.current = context


class TlsConnections:
    """Makes the connections of a port that speaks TLS.

    Args:
        connect: makes the protocol that gets the decrypted bytes.
        handshake_seconds: the time limit of a handshake.
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
        """Log a failed handshake, but not each: a scanner or a wrong URL makes thousands."""
        self._failures += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.info(
                "the TLS handshake of %s failed: %s (%d failed since the last such line)",
                peer(transport),
                reason,
                self._failures,
            )
            self._failures = 0
