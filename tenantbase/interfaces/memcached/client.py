"""memcached, held so that whatever it does costs one deadline and some cache misses.

The only importer of aiomcache. Its connection and its pool's accounts are used as they are; what
can hang, spin, or give an old answer to a new question is replaced:

- every call has a deadline, which waiting for its turn and connecting count against;
- a connection is used again only after its answer was read to the last byte and nothing came
  after it. After an error, an expired deadline or a cancellation it is cut off;
- the end of the stream is an error (aiomcache 0.8 reads on for ever, without yielding);
- many keys travel in one write, and whole reads are parsed at once (`memcache_protocol`);
- a breaker: a failure opens it, calls then fail at once, and one task in the background finds
  out when memcached is back.
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
from tenantbase.interfaces.cache import Item
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.protocol import (
    ProtocolError,
    get_items,
    get_version,
    set_items,
)
from tenantbase.interfaces.memcached.reader import PieceReader

log = logging.getLogger("tenantbase.memcache")

_T = TypeVar("_T")

# memcached, or the way to it, has failed (TimeoutError is an OSError). Whatever else is raised is
# a mistake of ours and not hidden.
_FAILURES = (OSError, EOFError, ProtocolError)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class MemcacheClient:
    """One memcached behind a few connections; the Protocol `Memcache` says what the calls mean.

    Making a client neither connects nor fails: memcached may be down. It belongs to the event
    loop that first uses it, and as an async context manager it closes itself.

    Args:
        address: where memcached listens.
        timeout: seconds that a call may take, whatever it has to wait for.
        pool_size: how many calls are made at a time; further ones wait for their turn.
    """

    def __init__(
        self, address: MemcacheAddress, *, timeout: float = 0.1, pool_size: int = 4
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._pool = _Pool(address)
        # aiomcache's pool keeps callers waiting for connections that have died.
        self._turns = asyncio.Semaphore(pool_size)
        self._available = True
        self._pause = _FIRST_PAUSE
        self._probe: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MemcacheClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def available(self) -> bool:
        """False while the breaker is open, and after `close`."""
        return self._available

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The items memcached has of these keys, each of 32 lowercase hexadecimal digits.

        Raises:
            CacheUnavailable: no complete answer within the deadline, or the breaker is open.
            ValueError: a key has another form; nothing was sent.
        """
        if not keys:
            return {}
        return await self._call(lambda conn: get_items(conn.reader, conn.writer, keys))

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store `(key, value, seconds)`; 0 seconds: no limit, otherwise up to 30 days.

        What memcached refuses, as too large or for lack of memory, is left out without an error.
        Raises as `get_many` does; some of the items may be stored then.
        """
        if items:
            await self._call(lambda conn: set_items(conn.reader, conn.writer, items))

    async def close(self) -> None:
        """End the probe and all connections. Calls under way and later ones fail."""
        self._available = False
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        self._pool.closed = True
        self._pool.drop_all()
        # A transport that was cut off closes its socket in the next turn of the loop.
        await asyncio.sleep(0)

    async def _call(self, command: Callable[[Connection], Awaitable[_T]]) -> _T:
        self._refuse_when_away()
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                self._refuse_when_away()
                try:
                    answer = await self._exchange(command)
                except (EOFError, ConnectionError):
                    # A memcached that was restarted has closed all connections, the idle ones
                    # too. That is no failure yet: once more, on a new one.
                    self._refuse_when_away()
                    self._pool.drop_idle()
                    answer = await self._exchange(command)
        except TimeoutError as error:
            # Size, or the queue, can take longer than that. Only silence is a failure.
            silence = asyncio.get_running_loop().time() - self._pool.last_heard
            if silence > self._timeout / 2:
                self._open_breaker(error)
            raise CacheUnavailable(f"memcached at {self._address} is too slow") from error
        except _FAILURES as error:
            self._open_breaker(error)
            raise CacheUnavailable(f"memcached at {self._address} has failed") from error
        self._pause = _FIRST_PAUSE
        return answer

    async def _exchange(self, command: Callable[[Connection], Awaitable[_T]]) -> _T:
        conn = await self._pool.acquire()
        try:
            answer = await command(conn)
        except BaseException:
            # Cancellation included: the answer, or the rest of it, may still come.
            self._pool.discard(conn)
            raise
        self._pool.release(conn)
        return answer

    def _refuse_when_away(self) -> None:
        if not self._available:
            raise CacheUnavailable(f"memcached at {self._address} is away")

    def _open_breaker(self, error: Exception) -> None:
        if self._available:
            self._available = False
            log.warning("memcached at %s is away: %r", self._address, error)
            self._pool.drop_all()
            self._probe = keep_running(self._await_return, "probe of memcached")

    async def _await_return(self) -> None:
        while not self._available:
            await asyncio.sleep(self._pause)
            # Set back by a call alone: what answers the probe and nothing else is still away.
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._exchange(lambda conn: get_version(conn.reader, conn.writer))
            except _FAILURES:
                continue
            self._available = True
            log.info("memcached at %s is back", self._address)


class _Pool(MemcachePool):
    """Connections, idle or in use; how many there may be is the client's concern.

    Of what is private in aiomcache, its accounts alone are used: `_pool`, the idle connections,
    and `_in_use`. `size` counts them, and there is no other way to get at them.
    """

    def __init__(self, address: MemcacheAddress) -> None:
        super().__init__(address.host, address.port, minsize=0, maxsize=0)
        self._address = address
        self.closed = False
        self.last_heard = -math.inf
        """When any byte was last received, by the clock of the event loop."""

    async def acquire(self) -> Connection:
        """An idle connection that is sound, or else a new one."""
        while not self._pool.empty():
            conn = self._pool.get_nowait()
            if cast(PieceReader, conn.reader).in_step and not conn.writer.is_closing():
                break
            _cut_off(conn)
        else:
            conn = await self._connect()
        cast(PieceReader, conn.reader).expected = True
        self._in_use.add(conn)
        return conn

    def release(self, conn: Connection) -> None:
        """Take back a connection whose answer was read to its end."""
        self._in_use.remove(conn)
        cast(PieceReader, conn.reader).expected = False
        self._pool.put_nowait(conn)

    def discard(self, conn: Connection) -> None:
        """Take back a connection that is out of step, or may be."""
        self._in_use.remove(conn)
        _cut_off(conn)

    def drop_idle(self) -> None:
        """Cut off the connections that are not in use."""
        while not self._pool.empty():
            _cut_off(self._pool.get_nowait())

    def drop_all(self) -> None:
        """Cut off all connections. Who waits for an answer on one reads the end of the stream."""
        self.drop_idle()
        for conn in self._in_use:
            _cut_off(conn)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        reader = PieceReader(self._heard)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        # Both event loops set TCP_NODELAY on their own.
        transport, _ = await (
            loop.create_unix_connection(lambda: protocol, self._address.path)
            if self._address.path
            else loop.create_connection(lambda: protocol, self._address.host, self._address.port)
        )
        conn = Connection(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        if self.closed:
            _cut_off(conn)
            raise ConnectionAbortedError("closed while connecting")
        return conn

    def _heard(self, moment: float) -> None:
        self.last_heard = moment


def _cut_off(conn: Connection) -> None:
    conn.writer.transport.abort()
