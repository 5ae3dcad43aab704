"""The connections of the fast path, which answer plain requests and leave others to aiohttp.

Every connection begins here. Plain requests (``parser.py``) are answered by ``answering.py``, with
the same bytes as aiohttp would send. For any other request, the connection is lent to aiohttp until
that request is answered (``lending.py``). If it is unclear where a request ends (``framing.py``), or
its end does not arrive in time, aiohttp gets the connection permanently, and applies its timeouts.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Final, cast

from tenantbase.documents import PIECE_BYTES
from tenantbase.request_context import RequestContext
from tenantbase.web.caller import Credentials
from tenantbase.web.fast_path.framing import frame
from tenantbase.web.fast_path.lending import Loan
from tenantbase.web.fast_path.parser import GENERAL, HEALTH, INCOMPLETE, Other, Request, context_in
from tenantbase.web.fast_path.shared import FastPath
from tenantbase.web.naming import with_id
from tenantbase.web.observer import CLIENT_GONE, Series
from tenantbase.web.transport.tenant_use import WINDOW, TenantUse
from tenantbase.web.transport.unread import Share

# With more unprocessed bytes than this, a connection is not read.
_MAX_AHEAD_BYTES: Final = 1 << 16


class FastConnection(asyncio.Protocol):
    """One connection. It answers its requests one by one, or lends itself to aiohttp for one."""

    __slots__ = (
        "_fast_path",
        "_transport",
        "_buffer",
        "_start",
        "_asked",
        "_series",
        "_began",
        "_busy",
        "_waiting",
        "context",
        "_counted",
        "_use",
        "_writable",
        "_reading",
        "_ended",
        "_touched",
        "_quiet_since",
        "_loan",
        "_share",
    )

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self._buffer = b""  # received data, already processed up to _start
        self._start = 0
        self._asked = b""  # the request in flight, in case aiohttp has to answer it
        self._series: Series  # where it is counted, if there is an observer
        self._began = 0  # when it began, likewise
        self.context: RequestContext | None = None  # its id and trace, if it has any
        self._busy = False  # a request is in flight, here or lent out, or waits
        self._waiting = False  # it waits for its tenant's window
        self._counted = False
        self._use: TenantUse | None = None  # of the tenant of the last plain request
        self._writable = True
        self._reading = True
        self._ended = False  # the client has closed its sending side
        self._touched = True
        self._quiet_since = 0.0
        self._loan: Loan | None = None  # made for the first request that aiohttp answers
        self._share: Share | None = None  # of the budget for unread answers, once needed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fast_path.connections.add(self)
        self._fast_path.lifecycle.connections.made(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fast_path.connections.discard(self)
        self._fast_path.lifecycle.connections.lost(self._transport, exc)
        if self._share is not None:
            self._share.release()
        if self._loan is not None:
            self._loan.end(exc)

    def pause_writing(self) -> None:
        self._writable = False
        self._hold(max(self._transport.get_write_buffer_size(), PIECE_BYTES))
        self._fast_path.name_client(self._transport, self._asked)
        if self._loan is not None:
            self._loan.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self._share is not None:
            self._share.release()
        if self._loan is not None:
            self._loan.resume_writing()
        self._go_on()

    def _hold(self, size: int) -> None:
        """Charge the bytes held for the client, instead of those before."""
        self.share.charge(size)

    def data_received(self, data: bytes) -> None:
        if self._loan is not None and self._loan.owed:
            data = self._loan.pass_on(data)
            if not data:
                return
        if self._start < len(self._buffer):
            # The copy is small: with more data than a bound, the connection is not read.
            self._buffer = self._buffer[self._start :] + data
        else:  # receiving more of an incomplete request does not count as activity
            self._touched = True
            self._buffer = data
        self._start = 0
        self._advance()
        if self._buffer or not self._reading:
            self._bound()

    def eof_received(self) -> bool:
        """The client has closed its sending side, as ``nc -N`` does. It still waits for answers."""
        self._ended = True
        self._fast_path.lifecycle.connections.half_closed(self._transport)
        incomplete = self._loan is not None and self._loan.owed  # and the rest will not come
        if incomplete or not self._busy and self._writable:
            self._transport.close()
        return True

    def look_after(self, now: float) -> None:
        """Close the connection if it is idle; hand it to aiohttp if its request is slow."""
        if self._busy or not self._writable:
            return
        if self._touched:
            self._touched = False
            self._quiet_since = now
        elif self._start < len(self._buffer):
            self._leave()
        elif now - self._quiet_since > self._fast_path.settings.keepalive_timeout:
            self._transport.close()

    def drain(self) -> None:
        """Hand a request that has not begun to aiohttp."""
        waiting = self._start < len(self._buffer)
        if self._waiting or waiting and not self._busy and self._writable:
            self._leave()

    def close(self) -> None:
        """Close the connection once everything written has been sent."""
        if self._loan is None or not self._loan.active:  # the borrower closes it after its answer
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection at once."""
        self._transport.abort()

    def _advance(self) -> None:
        """Begin the next request, if there is one and none is in flight."""
        if (
            self._busy
            or self._start >= len(self._buffer)
            or not self._writable
            or self._transport.is_closing()
        ):
            return
        fast_path = self._fast_path
        # While the server is draining, aiohttp answers all new requests and closes the connection.
        request: Request[Credentials] | Other = GENERAL
        if not fast_path.lifecycle.draining:
            request = fast_path.parse(self._buffer, self._start)
        if request is INCOMPLETE:
            return
        if request is not GENERAL and self._waits(request):
            return
        if request is not GENERAL and fast_path.answers.begin(request, self):
            self._begin(request)
        elif not self._lend():
            self._leave()

    def _waits(self, request: Request[Credentials]) -> bool:
        """Whether the next request has to wait until its tenant's window has room."""
        use = request.verdict.use
        if use is None or use.begun < WINDOW or request.route is HEALTH:  # nearly always
            return False
        lifecycle = self._fast_path.lifecycle
        if lifecycle.active + len(use.waiting) >= lifecycle.limit or not lifecycle.tenants.shared:
            return False
        self._busy = self._waiting = self._touched = True
        use.waiting.append(self)
        return True

    def resume(self) -> None:
        """The tenant's window has room again."""
        if self._waiting:
            self._busy = self._waiting = False
            self._go_on()

    def _begin(self, request: Request[Credentials]) -> None:
        self._busy = True
        self._touched = True
        lifecycle = self._fast_path.lifecycle
        self._counted = lifecycle.begin()
        self._use = use = request.verdict.use
        if use is not None:
            lifecycle.tenants.begin(use)
        end = request.end
        self._asked = self._buffer[self._start : end]
        self.context = request.context
        observer = self._fast_path.observer
        if observer is not None:
            self._series = self._fast_path.series[request.route]
            self._began = observer.turn or observer.begin()
        self._taken(end)

    @property
    def share(self) -> Share:
        """Of the budget for unread answers; released when the request in flight ends."""
        if self._share is None:
            self._share = Share(self._fast_path.unread, self._transport)
        if not self._share.size:
            self._share.use = self._use
        return self._share

    def _finished(self) -> None:
        self._busy = False
        if self._share is not None:
            self._share.release()
        self._fast_path.lifecycle.end(self._counted)
        if self._use is not None:
            self._fast_path.lifecycle.tenants.end(self._use)

    def _taken(self, end: int) -> None:
        """The buffer has been processed up to ``end``."""
        if end >= len(self._buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end

    def _bound(self) -> None:
        """Pause reading while too much is unprocessed."""
        waiting = len(self._buffer) - self._start
        if waiting > _MAX_AHEAD_BYTES:
            # Each time, because a borrower may have resumed reading.
            self._reading = False
            self._transport.pause_reading()
        elif not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _go_on(self) -> None:
        """After an answer: begin the next request, or close the connection."""
        self._advance()
        self._bound()
        # The client sends no more, so an incomplete request stays incomplete.
        if self._ended and not self._busy and self._writable:
            self._transport.close()

    # Requests for the general path

    def _lend(self) -> bool:
        """Lend the connection for the next request. Returns: False if its end is unclear."""
        framed = frame(self._buffer, self._start)
        if framed is None:
            return False
        loan, fast_path = self._loan, self._fast_path
        if loan is None:
            loan = self._loan = Loan(
                self._transport, fast_path.general, self._returned, fast_path.budget
            )
        self._busy = True
        self._use = None  # aiohttp's path counts the request
        self._touched = True
        end = framed.head_end + framed.body_length
        here = self._buffer[self._start : end]
        owed = end - self._start - len(here)
        self._taken(end)
        if not loan.begin(here, owed, framed.body_length):
            self._counted = fast_path.lifecycle.begin()
            self._asked = here
            if fast_path.observer is not None:
                self._series, self._began = fast_path.unparsed, monotonic_ns()
            # The rest of the body is read, and discarded, while the connection lingers.
            self.context = context_in(here)
            self.end(fast_path.answers.no_room(fast_path.budget), 503, closes=True)
        return True

    def _returned(self) -> None:
        """The borrower has answered its request, which has arrived completely."""
        self._busy = False
        self._go_on()

    def _leave(self) -> None:
        """Give the connection, with its unprocessed data, to aiohttp permanently."""
        self._waiting = False
        self._fast_path.connections.discard(self)
        if self._loan is not None:
            self._loan.end(None)
        protocol = self._fast_path.general(False)
        self._transport.set_protocol(protocol)
        if not self._reading:
            self._transport.resume_reading()
        protocol.connection_made(self._transport)
        rest, self._buffer = self._buffer[self._start :], b""
        protocol.data_received(rest)
        if self._ended:
            protocol.eof_received()

    def end(self, data: bytes, status: int, closes: bool = False) -> None:
        """Send the answer, and process what has arrived meanwhile."""
        fast_path, transport, context = self._fast_path, self._transport, self.context
        self._finished()
        gone = transport.is_closing()
        if gone:
            data, status = b"", CLIENT_GONE
        else:
            if status >= 400 and context is None:
                context = self.context = RequestContext()
            if context is not None and (status >= 400 or context.echoed):
                data = with_id(data, context)
            transport.write(data)
        observer = fast_path.observer
        if observer is not None and observer.finished(self._series, status, self._began):
            observer.log_last(self._series, status, len(data), self._asked, context, transport)
        if gone:
            return
        if not self._writable:  # the whole answer stays in memory until its last byte is sent
            self._hold(len(data))
        if closes or fast_path.lifecycle.draining:
            transport.close()
        elif self._buffer or self._ended or not self._reading:
            self._go_on()

    def hand_on(self) -> None:
        """Have the request in flight answered by aiohttp, which streams large answers."""
        self._finished()
        if self._transport.is_closing():
            return
        self._buffer = self._asked + self._buffer[self._start :]
        self._start = 0
        if not self._lend():
            self._leave()
