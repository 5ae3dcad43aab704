"""memcached behind guards: any failure costs at most one timeout and some cache misses.

The only importer of aiomcache. Its connection and its pool's bookkeeping are used as they are;
everything that can hang, spin, or give an old answer to a new request is replaced:

- every call has a timeout, which includes waiting for a turn and connecting;
- a connection is reused only if its answer was read to the last byte and nothing came after it.
  After an error, a timeout or a cancellation it is aborted;
- the end of the stream is an error (aiomcache 0.8 reads on forever, without yielding);
- many keys travel in one write, and whole reads are parsed at once. An item that has not changed since
  it was last read is not sent again (`protocol.py`);
- a circuit breaker: a failure opens it, calls then fail at once, and one background task finds out
  when memcached is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from aiomcache.pool import Connection, MemcachePool

from tenantbase.background import keep_running
from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import Answer, Item
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.protocol import (
    KEPT_BYTES,
    ProtocolError,
    get_items,
    probe,
    set_items,
)
from tenantbase.interfaces.memcached.reader import PieceReader
from tenantbase.outage import Outage

log = logging.getLogger("tenantbase.memcache")

_T = TypeVar("_T")

# memcached, or the network to it, has failed (TimeoutError is an OSError). Any other exception is
# our bug, and is not hidden.
_FAILURES = (OSError, EOFError, ProtocolError)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class MemcacheClient:
    """One memcached behind a few connections; the Protocol `Memcache` documents the calls.

    Creating a client neither connects nor fails: memcached may be down. It belongs to the event
    loop that first uses it, and as an async context manager it closes itself.

    Args:
        address: where memcached listens.
        timeout: seconds that a call may take, including all its waiting.
        pool_size: how many calls run at a time; others wait for a turn.
        kept_bytes: how much of one answer is kept; items beyond that are ``LEFT_OUT``.
    """

    def __init__(
        self,
        address: MemcacheAddress,
        *,
        timeout: float = 0.1,
        pool_size: int = 4,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._kept_bytes = kept_bytes
        self._pool = _Pool(address)
        # aiomcache's pool keeps callers waiting for connections that have died.
        self._turns = asyncio.Semaphore(pool_size)
        self._available = True
        self._pause = _FIRST_PAUSE_SECONDS
        self._probe: asyncio.Task[None] | None = None
        self._outage = Outage(log, f"memcached at {address} is back")

    async def __aenter__(self) -> MemcacheClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def available(self) -> bool:
        """False while the breaker is open, and after `close`."""
        return self._available

    @property
    def away(self) -> Sequence[int]:
        """Its number, 0, while it is not available."""
        return () if self._available else (0,)

    async def get_many(
        self, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        """As the Protocol says.

        Raises:
            CacheUnavailable: no complete answer within the timeout, or the breaker is open.
            ValueError: a name has another form; nothing was sent.
        """
        if not names:
            return []
        kept = self._kept_bytes
        return await self._call(
            lambda conn: get_items(conn.reader, conn.writer, names, known, kept)
        )

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store `(key, value, seconds)`; 0 seconds: no limit, otherwise up to 30 days.

        Items that memcached refuses, as too large or for lack of memory, are left out silently.
        Raises as `get_many` does; some of the items may have been stored then.
        """
        if items:
            await self._call(lambda conn: set_items(conn.reader, conn.writer, items))

    async def close(self) -> None:
        """End the probe and all connections. Calls in flight and later ones fail."""
        self._available = False
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        self._pool.closed = True
        self._pool.drop_all()
        # An aborted transport closes its socket in the next turn of the loop.
        await asyncio.sleep(0)

    async def _call(self, command: Callable[[Connection], Awaitable[_T]]) -> _T:
        self._refuse_when_away()
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                self._refuse_when_away()
                try:
                    answer = await self._exchange(command)
                except (EOFError, ConnectionError):
                    # A restart of memcached closes all connections, idle ones included. That is not
                    # yet a failure: try once more, on a new connection.
                    self._refuse_when_away()
                    self._pool.drop_idle()
                    answer = await self._exchange(command)
        except TimeoutError as error:
            # A large answer, or the queue, may just take longer. Only silence is a failure.
            silence = asyncio.get_running_loop().time() - self._pool.last_heard
            if silence > self._timeout / 2:
                self._open_breaker(error)
            raise CacheUnavailable(
                f"memcached at {self._address} is too slow", CacheFailure.TIMEOUT
            ) from error
        except _FAILURES as error:
            self._open_breaker(error)
            protocol = isinstance(error, ProtocolError)
            reason = CacheFailure.PROTOCOL if protocol else CacheFailure.CONNECTION
            raise CacheUnavailable(f"memcached at {self._address} has failed", reason) from error
        self._pause = _FIRST_PAUSE_SECONDS
        return answer

    async def _exchange(self, command: Callable[[Connection], Awaitable[_T]]) -> _T:
        conn = await self._pool.acquire()
        try:
            answer = await command(conn)
        except BaseException:
            # Even after a cancellation: the rest of the answer may still arrive.
            self._pool.discard(conn)
            raise
        self._pool.release(conn)
        return answer

    def _refuse_when_away(self) -> None:
        if not self._available:
            raise CacheUnavailable(f"memcached at {self._address} is down", CacheFailure.DOWN)

    def _open_breaker(self, error: Exception) -> None:
        if self._available:
            self._available = False
            self._met(error)
            self._pool.drop_all()
            self._probe = keep_running(self._await_return, "probe of memcached")

    def _met(self, error: Exception) -> None:
        silent = isinstance(error, TimeoutError)
        reason = f"no answer in {self._timeout:g} s" if silent else repr(error)
        self._outage.met("memcached at %s is down: %s", self._address, reason)

    async def _await_return(self) -> None:
        while not self._available:
            await asyncio.sleep(self._pause)
            # Only a successful call resets the back-off: a memcached that answers only probes is
            # down.
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._exchange(lambda conn: probe(conn.reader, conn.writer))
            except _FAILURES as failure:
                self._met(failure)
                continue
            self._available = True
            self._outage.over()


class _Pool(MemcachePool):
    """Connections, idle or in use. The client bounds their number. The only private attributes of
    aiomcache used here are its bookkeeping: `_pool`, the idle connections, and `_in_use`. `size`
    counts both, and there is no public way to reach them.

    aiomcache declares that a connection has a `StreamReader`. All of ours are made by `_connect`
    and have a `PieceReader`; hence the casts.
    """

    def __init__(self, address: MemcacheAddress) -> None:
        super().__init__(address.host, address.port, minsize=0, maxsize=0)
        self._address = address
        self.closed = False
        self.last_heard = -math.inf
        """When a byte was last received, by the event loop's clock."""

    async def acquire(self) -> Connection:
        """A usable idle connection, or a new one."""
        while not self._pool.empty():
            conn = self._pool.get_nowait()
            if cast(PieceReader, conn.reader).in_step and not conn.writer.is_closing():
                break
            _abort(conn)
        else:
            conn = await self._connect()
        cast(PieceReader, conn.reader).expected = True
        self._in_use.add(conn)
        return conn

    def release(self, conn: Connection) -> None:
        """Take back a connection whose answer was read completely."""
        self._in_use.remove(conn)
        cast(PieceReader, conn.reader).expected = False
        self._pool.put_nowait(conn)

    def discard(self, conn: Connection) -> None:
        """Take back a connection that is, or may be, out of step."""
        self._in_use.remove(conn)
        _abort(conn)

    def drop_idle(self) -> None:
        """Abort idle connections."""
        while not self._pool.empty():
            _abort(self._pool.get_nowait())

    def drop_all(self) -> None:
        """Abort all connections. Callers that wait for an answer read the end of the stream."""
        self.drop_idle()
        for conn in self._in_use:
            _abort(conn)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        reader = PieceReader(self._heard)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        # asyncio and uvloop both set TCP_NODELAY.
        transport, _ = await (
            loop.create_unix_connection(lambda: protocol, self._address.path)
            if self._address.path
            else loop.create_connection(lambda: protocol, self._address.host, self._address.port)
        )
        conn = Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        if self.closed:
            _abort(conn)
            raise ConnectionAbortedError("closed while connecting")
        return conn

    def _heard(self, moment: float) -> None:
        self.last_heard = moment


def _abort(conn: Connection) -> None:
    conn.writer.transport.abort()
