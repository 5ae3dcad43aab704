"""One connection to a server, and what makes it unusable.

asyncpg's own timeouts, and cancelling a call, send the server a CancelRequest. A COMMIT that waits for
the standby then becomes visible and succeeds with no more than a WARNING, although the standby does not
have it. So calls are neither cancelled nor timed out here: a call that must end is ended by
``terminate``. The store runs each call in a task of its own that is never cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import asyncpg

from tenantbase.figures import SessionLoss
from tenantbase.interfaces.postgres.address import DatabaseAddress, Host
from tenantbase.interfaces.postgres.driver_errors import (
    DAMAGED_CLASS,
    SessionLost,
    reason,
    unavailable,
)

SCHEMA: Final = "tenantbase"
Rows = Sequence[Any]

SNAPSHOT: Final = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""A transaction mode in which all statements see the same snapshot."""

_CLOSED: Final = "the server closed the connection"
_LOSS: Final = {
    "WARNING": SessionLoss.WARNING,
    "FATAL": SessionLoss.CONNECTION,
    "PANIC": SessionLoss.CONNECTION,
}


class Connection:
    """A connection that runs one statement at a time.

    Attributes:
        host: the server's.
        calls: how many statements it runs, 0 or 1.
        patience: seconds that a statement may take; None: as long as it needs.
        on_end: called when the connection can no longer be used, with the reason in words and its kind.
    """

    def __init__(self, driver: asyncpg.Connection, host: Host) -> None:
        self.host: Final = host
        self.calls = 0
        self.patience: float | None = None
        self.on_end: Callable[[str, SessionLoss], None] = lambda why, loss: None
        self._driver = driver
        self._ended = ""
        driver.add_log_listener(self._hear)
        driver.add_termination_listener(self._hear_end)

    @classmethod
    async def open(
        cls, address: DatabaseAddress, host: Host, timeout: float, **settings: str
    ) -> Self:
        """Connect to one of the servers.

        Args:
            timeout: seconds.
            settings: of the connection, such as ``lock_timeout``.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError: see
                ``driver_errors.reason``.
        """
        driver = await asyncpg.connect(
            str(address.url),
            host=host.name,
            port=host.port,
            timeout=timeout,
            target_session_attrs="any",
            server_settings={
                "application_name": "tenantbase",
                "search_path": SCHEMA,
                "jit": "off",
                "client_min_messages": "warning",
                **settings,
            },
        )
        return cls(driver, host)

    @property
    def ended(self) -> str:
        """Why it can no longer be used; empty while it can."""
        return self._ended or (_CLOSED if self._driver.is_closed() else "")

    async def fetch(self, statement: str, *args: object) -> Rows:
        """Run a statement; returns its rows.

        Raises:
            StoreUnavailable: the server refused it, and nothing was done.
            SessionLost: there was no answer, or none that counts; it may have been done.
        """
        rows: Rows = await self._run(self._driver.fetch, statement, *args)
        return rows

    async def execute(self, statements: str) -> None:
        """Run statements without parameters; raises as ``fetch``."""
        await self._run(self._driver.execute, statements)

    @asynccontextmanager
    async def transaction(self, mode: str = "") -> AsyncIterator[None]:
        """A transaction, for the block: all its statements take effect, or none. Raises as ``fetch``.

        Args:
            mode: such as ``READ WRITE``; the server's default if empty.
        """
        await self.execute(f"BEGIN {mode}")
        try:
            yield
        except BaseException:
            if not self.ended:
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def _run(self, call: Callable[..., Awaitable[Any]], *args: object) -> Any:
        self._check()
        self.calls += 1
        timer = self._limit()
        try:
            result = await call(*args)
        except Exception as error:
            # Of any type: if the server ends the connection between two statements, the driver raises
            # InternalClientError or even TypeError for the next one.
            met = unavailable(error)
            if isinstance(met, SessionLost):
                # About a connection that has ended, the driver only says that it is closed.
                self.terminate(_CLOSED if self._driver.is_closed() else reason(error))
            self._check()  # terminated meanwhile, or just now
            raise met from error
        finally:
            self.calls -= 1
            if timer is not None:
                timer.cancel()
        self._check()  # a warning may have come with the answer
        return result

    def _limit(self) -> asyncio.TimerHandle | None:
        if self.patience is None:
            return None
        loop = asyncio.get_running_loop()
        late = f"no answer within {self.patience:g} s"
        return loop.call_later(self.patience, self.terminate, late, SessionLoss.TIMEOUT)

    def _check(self) -> None:
        if self._ended:
            raise SessionLost(self._ended)

    def terminate(self, why: str, loss: SessionLoss = SessionLoss.CONNECTION) -> None:
        """Close it at once, whatever it does, without asking the server to cancel that."""
        if not self._ended:
            self._ended = why
            self._driver.terminate()
            self.on_end(why, loss)

    def _hear_end(self, driver: object) -> None:
        self.terminate(_CLOSED)

    def _hear(self, driver: object, message: Any) -> None:
        # PostgreSQL warns when a wait for the standby is given up; the statement succeeds all the same.
        # The driver calls this before it resumes the caller. A damaged page causes a warning, too, but
        # only its own statement fails.
        if message.severity_en in _LOSS and message.sqlstate[:2] != DAMAGED_CLASS:
            said = "warns" if message.severity_en == "WARNING" else "ends the connection"
            self.terminate(f"the server {said}: {message.message}", _LOSS[message.severity_en])
