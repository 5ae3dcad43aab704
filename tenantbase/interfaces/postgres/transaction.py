"""A transaction that takes the lock first, for commands that cannot be worked out before.

Nothing else changes while it runs, so whatever it reads is the newest state. It has several round
trips, during which all other writers wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tenantbase.events import EventKind
from tenantbase.interfaces.planning.change_log import ChangeLog, Line
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.postgres.connection import Connection, Rows
from tenantbase.interfaces.postgres.plan import Effects
from tenantbase.interfaces.postgres.queries import packed
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.shared_store import NameHash
from tenantbase.listing import prefix_range

_LOCK: Final = "SELECT * FROM lock_clock($1, $2, $3, $4)"
_WRITE: Final = (
    "SELECT write_rows($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
)
_FINISH: Final = "SELECT finish_group($1, $2, $3, $4, $5, $6)"
_FORGET_PREFIXES: Final = "DELETE FROM deleted_prefixes WHERE low >= $1 AND high <= $2"
_DELETE_PREFIX: Final = "INSERT INTO deleted_prefixes VALUES ($1, $2, $3)"


class Transaction:
    """A transaction that holds the lock.

    Attributes:
        now: its time in Unix seconds.
        waited: for the lock, in seconds.
        position: of the last change so far.
        prefixes: the position of the last deletion of a large prefix.
        access_changes: how many commands have changed tenants, limits or tokens.
        changed: whether anything else has changed that is no change of a key.
    """

    def __init__(
        self,
        connection: Connection,
        base: int,
        now: float,
        prefixes: int,
        access: int,
        waited: float,
    ) -> None:
        self._connection = connection
        self.base: Final = base
        self.now: Final = now
        self.waited: Final = waited
        self.position = base
        self.prefixes = prefixes
        self.access_changes = 0
        self.changed = False
        self._last_prefix: int | None = None
        self._access = access
        self._keys: set[str] = set()
        self._everything = False

    @classmethod
    async def begin(
        cls, session: Session, connection: Connection, *, replicated: bool, latest: float
    ) -> Transaction:
        """Begin one, and take the lock. Raises as ``Connection.fetch``."""
        await connection.execute("BEGIN")
        try:
            ((*state,),) = await connection.fetch(
                _LOCK, session.epoch, session.timeline, replicated, latest
            )
        except BaseException:
            if not connection.ended:
                await connection.execute("ROLLBACK")
            raise
        return cls(connection, *state)

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to commit."""
        return self.position > self.base or self.access_changes > 0 or self.changed

    async def fetch(self, statement: str, *args: object) -> Rows:
        """Run a statement of it."""
        return await self._connection.fetch(statement, *args)

    def change_log(self) -> ChangeLog:
        """An empty change log that goes on after the last change."""
        return ChangeLog(self.position)

    async def write(self, effects: Effects) -> None:
        """Change rows, usage and change log."""
        if not effects.lines and not effects.grown:
            return
        await self.fetch(_WRITE, self.position, *effects.arguments())
        self.changed = True
        self.position += len(effects.lines)
        for line in effects.lines:
            if line[1] == EventKind.RESET:
                self._everything = True
            else:
                self._keys.add(line[2])

    async def record(self, lines: Sequence[Line], *tenants: TenantUsage | None) -> None:
        """Note changes of rows that were made by statements, and of the usage of tenants."""
        effects = Effects(lines)
        effects.grown = [
            (each.name, *each.growth) for each in tenants if each is not None and each.changed
        ]
        await self.write(effects)

    async def hide_range(self, prefix: str) -> None:
        """Delete all rows under a scoped prefix by one row in ``deleted_prefixes``."""
        low, high = prefix_range(prefix)
        # Ranges within the new one are no longer needed.
        await self.fetch(_FORGET_PREFIXES, low, high)
        change_log = self.change_log()
        self._last_prefix = self.prefixes = change_log.next_version
        await self.fetch(_DELETE_PREFIX, self._last_prefix, low, high)
        change_log.record(EventKind.RESET, prefix)
        await self.record(change_log.lines)

    async def commit(self, token: UUID, name_hash: NameHash) -> None:
        """Commit it. After a SessionLost, whether it was committed is not known."""
        hashes = packed(sorted({name_hash(key) for key in self._keys}))
        await self.fetch(
            _FINISH,
            token,
            self.position,
            self.now,
            None if self._everything else hashes,
            self._last_prefix,
            self._access + self.access_changes if self.access_changes else None,
        )
        await self._connection.execute("COMMIT")

    async def roll_back(self) -> None:
        """Undo it."""
        if not self._connection.ended:
            await self._connection.execute("ROLLBACK")
