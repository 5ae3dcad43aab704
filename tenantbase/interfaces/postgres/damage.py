"""Reads around damage: of the keys that are read together, only those with damaged rows fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tenantbase.entry import Entry
from tenantbase.errors import Damaged, StoreError
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.confirmation import NOTHING, Confirmer, Head
from tenantbase.interfaces.postgres.connection import SNAPSHOT, Connection
from tenantbase.interfaces.postgres.session import Session

_ANY_SIZE: Final = (1 << 31) - 1  # the first value is always read


async def read_apart(
    confirmer: Confirmer, session: Session, connection: Connection, keys: Sequence[str]
) -> tuple[Head, Mapping[str, Entry | None | StoreError]]:
    """Read keys one by one, in one snapshot, and confirm it.

    Keys that are too much for one read get ``LeftOut``, but never the first one.

    Raises:
        StoreError: as ``Confirmer.ask``.
    """
    found: dict[str, Entry | None | StoreError] = {}
    left, largest = queries.READ_BYTES, _ANY_SIZE
    async with connection.transaction(SNAPSHOT):
        head, _ = await confirmer.look(session, connection, NOTHING)
        for key in keys:
            await connection.execute("SAVEPOINT one")
            try:
                _, rows = await confirmer.look(session, connection, queries.READ, [key], largest)
            except Damaged as error:
                await connection.execute("ROLLBACK TO one")
                found[key] = error
                continue
            (found[key],) = (entry,) = queries.entries_of([key], rows)
            if isinstance(entry, Entry):
                largest = left = max(left - len(entry.value), 0)
    await confirmer.confirm(session, connection)
    return head, found
