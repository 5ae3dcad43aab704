"""The transport that aiohttp's protocol gets when the fast path lends it a connection.

Its ``close`` ends the loan, not the connection. ``lending.py`` has the lender's side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol


class Lender(Protocol):
    """The owner of the connection."""

    def judged(self) -> None:
        """The request has begun, and answers for its body from now on."""

    def returned(self, keep: bool) -> None:
        """The request is answered. With ``keep``, more requests may follow on the connection."""

    def given_up(self, loan: BorrowedTransport) -> None:
        """The borrower has closed its transport: after its last answer, or while it was idle."""


class Lendable(Protocol):
    """A protocol that reports each answer to its lender."""

    lender: Lender | None


class BorrowedTransport(asyncio.Transport):
    """A connection's transport, as the borrower sees it."""

    def __init__(self, transport: asyncio.Transport, lender: Lender) -> None:
        super().__init__()
        self._transport = transport
        self._lender = lender
        self._closed = False

    @property
    def lent(self) -> asyncio.Transport:
        """The connection's own transport."""
        return self._transport

    def judged(self) -> None:
        """The request has begun, and answers for its body from now on."""
        self._lender.judged()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._transport.writelines(list_of_data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._lender.given_up(self)

    def abort(self) -> None:
        self._closed = True
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False


def own_transport(transport: asyncio.Transport) -> asyncio.Transport:
    """The connection's own transport, whether it is lent or not."""
    return transport.lent if isinstance(transport, BorrowedTransport) else transport
