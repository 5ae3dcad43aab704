"""Lending a connection of the fast path to aiohttp's protocol, for one request at a time.

aiohttp's protocol gets the bytes of exactly one request, and a transport whose ``close`` concerns
that request only (``borrowed.py``). When the request has its answer, the fast path reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from tenantbase.web.fast_path.borrowed import BorrowedTransport, Lendable
from tenantbase.web.transport.budget import Budget


class Loan:
    """The loans of one connection, one after the other.

    Args:
        general: makes aiohttp's protocol; called for the first loan, and for the next one after
            that protocol has closed its transport.
        budget: for bodies; the part of a body that arrives together with its head is charged here.
        go_on: called when the borrower has returned the connection.

    Attributes:
        active: the borrower has a request.
        owed: bytes of that request that have yet to arrive.
    """

    __slots__ = (
        "active",
        "owed",
        "_transport",
        "_general",
        "_go_on",
        "_borrower",
        "_borrowed",
        "_answered",
        "_budget",
        "_unjudged",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        general: Callable[[bool], asyncio.Protocol],
        go_on: Callable[[], None],
        budget: Budget,
    ) -> None:
        self.active = False
        self.owed = 0
        self._budget = budget
        self._unjudged = 0  # bytes of the body that arrived with the head
        self._transport = transport
        self._general = general
        self._go_on = go_on
        self._borrower: asyncio.Protocol | None = None
        self._borrowed: BorrowedTransport | None = None
        self._answered = False  # the request is answered, but may not have arrived completely

    def begin(self, data: bytes, owed: int, body: int) -> bool:
        """Lend the connection for a request: ``data`` has arrived, ``owed`` bytes have not.

        Args:
            body: the length of the request's body.

        Returns: False if there is no room for the body; nothing was done.
        """
        if body:
            arrived = body - owed
            if not self._budget.admit(body, arrived):
                return False
            self._unjudged = arrived
        if self._borrower is None:
            self._borrower = self._general(True)
            self._borrowed = BorrowedTransport(self._transport, self)
            cast(Lendable, self._borrower).lender = self
            self._borrower.connection_made(self._borrowed)
        self.active = True
        self.owed = owed
        self._answered = False
        self._borrower.data_received(data)
        return True

    def judged(self) -> None:
        """The request has begun, and answers for its body from now on."""
        self._budget.judged(self._unjudged)
        self._unjudged = 0

    def pass_on(self, data: bytes) -> bytes:
        """Give the borrower the bytes that belong to its request; returns the rest."""
        here, rest = data[: self.owed], data[self.owed :]
        self.owed -= len(here)
        if self._borrower is not None:
            self._borrower.data_received(here)
        self._take_back()
        return rest

    def returned(self, keep: bool) -> None:
        """The borrower has answered. Unless ``keep``, it is about to close the connection."""
        self.judged()
        if self.active and keep:
            self._answered = True
            self._take_back()

    def _take_back(self) -> None:
        if self._answered and not self.owed:
            self.active = self._answered = False
            # In a later turn: the borrower is still finishing this request.
            asyncio.get_running_loop().call_soon(self._go_on)

    def given_up(self, borrowed: BorrowedTransport) -> None:
        """The borrower has closed its transport."""
        if borrowed is not self._borrowed:
            return
        self.judged()
        self._borrower = self._borrowed = None
        if self.active:
            self._transport.close()
        # Otherwise the borrower's keep-alive timer ran out, but only the lender ends idle
        # connections.

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        if self._borrower is not None:
            self._borrower.pause_writing()

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        if self._borrower is not None:
            self._borrower.resume_writing()

    def end(self, error: Exception | None) -> None:
        """The connection is lost, or will not be lent again."""
        self.judged()
        if self._borrower is not None:
            borrower, self._borrower, self._borrowed = self._borrower, None, None
            borrower.connection_lost(error)
