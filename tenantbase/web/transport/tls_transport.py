"""TLS between a TCP transport and a protocol that is unaware of it.

The TLS of asyncio and uvloop would defeat the limits on connections. Its reported write buffer
omits the bytes that the TCP transport holds, so a client that reads nothing seems to have read
everything. A client that has sent close_notify and waits gets no answer. asyncio's closes the
socket before it calls ``connection_lost``, which prevents the lingering close. A connection is
counted, and can be closed, only after its handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

_RECORD_BYTES: Final = 1 << 14  # the largest plaintext of a TLS record (RFC 8446, section 5.1)
# How much is encrypted at a time: about as much as a transport buffers before it pauses writing, so
# a large answer is not in memory twice, as plaintext and as ciphertext.
_PIECE_BYTES: Final = 1 << 16
# A client can request new keys with every record, which costs as much as a small request. So records
# without content are limited to this many bytes, and this many more for each byte of content. Even a
# record with a single byte of content is 22 bytes long.
_EMPTY_BYTES: Final = 1 << 16
_EMPTY_PER_BYTE: Final = 64
_NONE: Final = asyncio.Protocol()


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One connection: the protocol of a TCP transport, and the transport of an HTTP protocol.

    The HTTP protocol gets its connection before the handshake, so the connection is counted, closed
    when idle, and drained like any other. What it writes early is sent after the handshake.

    The directions end separately: a client that has sent close_notify, or has closed its side of
    the TCP connection, still gets its answer. A truncated request is noticed even without
    close_notify, because HTTP requests state where they end.
    """

    __slots__ = (
        "_incoming",
        "_outgoing",
        "_tls",
        "_protocol",
        "_raw",
        "_seconds",
        "_failed",
        "_timer",
        "_established",
        "_allowance",
        "_pending",
        "_pending_bytes",
        "_raw_writable",
        "_paused",
        "_reading",
        "_held",
        "_ended",
        "_closing",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        handshake_seconds: float,
        failed: Callable[[TlsTransport, str], object],
    ) -> None:
        super().__init__()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol: asyncio.BaseProtocol = protocol
        self._seconds = handshake_seconds
        self._failed = failed
        self._timer: asyncio.TimerHandle | None = None
        self._established = False
        self._allowance = _EMPTY_BYTES  # of records without content, in bytes
        self._pending: deque[memoryview] = deque()  # to be encrypted
        self._pending_bytes = 0
        self._raw_writable = True
        self._paused = False  # the protocol was told to pause writing
        self._reading = True  # the protocol wants to read
        self._held = False  # reading is suspended nonetheless; see _send
        self._ended = False  # the client will send nothing more
        self._closing = False

    # The protocol of the TCP transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, self._too_slow)
        self._protocol.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._closing = True
        self._drop_pending()
        protocol, self._protocol = self._protocol, _NONE  # break the reference cycle
        protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._ended:  # what follows close_notify is ignored (RFC 8446, 6.1)
            return
        self._incoming.write(data)
        if self._established or self._shake_hands():
            self._receive()

    def eof_received(self) -> bool:
        if not self._established:
            self._closing = True
            return False
        if not (self._ended or self._closing):
            self._end_of_input()
        return True  # close() closes the TCP transport

    def pause_writing(self) -> None:
        self._raw_writable = False
        if not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._raw_writable = True
        if self._held:
            self._held = False
            if self._reading and not self._raw.is_closing():
                self._raw.resume_reading()
        self._flush()

    # The transport of the HTTP protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if (
            self._established
            and self._raw_writable
            and not self._pending
            and len(data) <= _PIECE_BYTES
        ):
            self._encrypt(data)
            return
        # Copy only data that may change; usually these are the answer's own, immutable bytes.
        self._pending.append(memoryview(data if isinstance(data, bytes) else bytes(data)))
        self._pending_bytes += len(self._pending[-1])
        self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        pieces = list(list_of_data)
        if sum(map(len, pieces)) <= _PIECE_BYTES:  # head and body in one record, if they fit
            self.write(b"".join(pieces))
            return
        for piece in pieces:
            self.write(piece)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._established:
            self._drop_pending()
            self._stop_timer()
            self._raw.close()
            return
        if not self._raw.is_closing():
            self._raw.pause_reading()
        if not self._pending:
            self._shut()

    def abort(self) -> None:
        self._closing = True
        self._drop_pending()
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        self._reading = False
        if not self.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._reading = True
        if not (self._held or self.is_closing()):
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._pending_bytes + self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._tls.context
        if name == "ssl_object":
            return self._tls
        if name == "peercert":
            return self._tls.getpeercert() if self._established else default
        return self._raw.get_extra_info(name, default)

    # Between the two

    def _shake_hands(self) -> bool:
        """Continue the handshake. Returns: whether it is finished."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        except ssl.SSLError as error:
            self._fail(error)
            return False
        self._established = True
        self._stop_timer()
        self._send()
        self._flush()
        return True

    def _receive(self) -> None:
        pieces: list[bytes] = []
        ended = False
        received = self._incoming.pending
        try:
            while self._incoming.pending or self._tls.pending():
                piece = self._tls.read(_RECORD_BYTES)
                if not piece:  # close_notify
                    ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:  # a damaged record, or the client's alert
            self._fail(error)
            return
        earned = _EMPTY_PER_BYTE * sum(map(len, pieces))
        self._allowance = min(_EMPTY_BYTES, self._allowance + earned - received)
        if self._allowance < 0:
            self._fail(ssl.SSLError("too many records without content"))
            return
        if self._outgoing.pending:
            self._send()
        protocol = cast(asyncio.Protocol, self._protocol)
        if pieces:
            protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and not self._closing:
            self._end_of_input()

    def _end_of_input(self) -> None:
        self._ended = True
        if not cast(asyncio.Protocol, self._protocol).eof_received():
            self.close()

    def _send(self) -> None:
        """Send TLS's own messages, such as those of the handshake."""
        if data := self._outgoing.read():
            self._raw.write(data)
            if not self._raw_writable and not self._held and not self._raw.is_closing():
                # Otherwise a client could request new keys forever without reading the answers.
                self._held = True
                self._raw.pause_reading()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._raw.write(self._outgoing.read())

    def _flush(self) -> None:
        """Encrypt pending data while the TCP transport accepts more."""
        if not self._established or self._raw.is_closing():
            return
        while self._pending and self._raw_writable:
            piece = self._pending.popleft()
            if len(piece) > _PIECE_BYTES:
                self._pending.appendleft(piece[_PIECE_BYTES:])
                piece = piece[:_PIECE_BYTES]
            self._pending_bytes -= len(piece)
            self._encrypt(piece)
        if self._pending:
            return
        if self._closing:
            self._shut()
        elif self._paused and self._raw_writable:
            self._paused = False
            self._protocol.resume_writing()

    def _shut(self) -> None:
        """Send close_notify and close the TCP connection, without waiting for the client's.

        The lingering close reads what the client still sends.
        """
        if self._raw.is_closing():
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the client's close_notify has not come yet, or data precede it
            pass
        self._raw.write(self._outgoing.read())
        self._raw.close()

    def _fail(self, error: ssl.SSLError) -> None:
        """The client broke the protocol, or does not speak TLS: send the alert, if any, and close."""
        if not self._established:
            self._failed(self, _reason(error))
        self._closing = True
        self._stop_timer()
        self._drop_pending()
        self._raw.write(self._outgoing.read())
        self._raw.close()

    def _too_slow(self) -> None:
        self._failed(self, f"not finished within {self._seconds:g} s")
        self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_pending(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0


def _reason(error: ssl.SSLError) -> str:
    """The reason in words: a message for certificates, or such as ``HTTP_REQUEST`` made legible."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return (error.reason or str(error)).lower().replace("_", " ")
