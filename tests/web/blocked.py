"""A policy whose writes wait for the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Applied, Command


class BlockedCache(Cache):
    """Its writes begin when the gate is set.

    Attributes:
        begun: the number of writes so far.
    """

    gate: asyncio.Event
    begun: int

    def write(self, *changes: Command) -> asyncio.Future[tuple[Applied, ...]]:
        self.begun += 1
        return asyncio.ensure_future(self._write(*changes))

    def write_then(
        self, command: Command, receive: Callable[[tuple[Applied, ...] | Exception], None]
    ) -> None:
        def deliver(write: asyncio.Future[tuple[Applied, ...]]) -> None:
            error = write.exception()
            assert error is None or isinstance(error, Exception)
            receive(write.result() if error is None else error)

        self.write(command).add_done_callback(deliver)

    async def _write(self, *changes: Command) -> tuple[Applied, ...]:
        await self.gate.wait()
        return await super().write(*changes)


def blocked(cache: Cache) -> BlockedCache:
    """The same policy, with its gate closed."""
    slow = object.__new__(BlockedCache)
    slow.__dict__.update(cache.__dict__, gate=asyncio.Event(), begun=0)
    return slow
