"""What the command line needs to read a database: ``Cache`` has it, and a read-only database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

from tenantbase.entry import Entry
from tenantbase.lookup import Lookup
from tenantbase.interfaces.store import Applied, Command


class Entries(Protocol):
    """The entries of a database; see ``Cache``."""

    def now(self) -> float: ...

    def get(self, key: str) -> Awaitable[Lookup]: ...

    def scan(
        self, prefix: str = "", after: str = "", *, limit: int | None = None
    ) -> AsyncIterator[tuple[list[Entry], bool]]: ...

    def write(self, *changes: Command) -> Awaitable[Sequence[Applied]]:
        """Raises CannotOpen where the database is read-only."""
