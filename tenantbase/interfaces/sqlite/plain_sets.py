"""Plain values under new keys, as imports store them: written from columns.

Whatever needs more thought is left to ``rows.py``, whose outcome would be the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import count
from typing import Final

from tenantbase.entry import JSON
from tenantbase.interfaces.planning.identifiers import new_ids
from tenantbase.interfaces.sqlite.change_log import SqliteChangeLog
from tenantbase.interfaces.sqlite.large_values import LARGE_BYTES
from tenantbase.interfaces.sqlite.queries import key_batches
from tenantbase.interfaces.sqlite.usage import Usage
from tenantbase.plain_sets import PlainSets
from tenantbase.scope import tenant_of

# For a JSON value without an expiry, as nearly all are, and a new row's versions, which are equal: each
# parameter costs the driver a thousand instructions.
INSERT_PLAIN: Final = f"""
    INSERT INTO entries (key, id, value, created, version, content_type)
    VALUES (?, ?, {{}}, ?4, ?4, '{JSON}')
"""
_ANY_BETWEEN: Final = "SELECT 1 FROM entries WHERE key BETWEEN ? AND ? LIMIT 1"
_ANY_ROW: Final = "SELECT 1 FROM entries WHERE key IN ({}) LIMIT 1"


def create_plain(
    connection: sqlite3.Connection, change_log: SqliteChangeLog, usage: Usage, sets: PlainSets
) -> bool:
    """Create entries, inside a SQLite transaction.

    Returns:
        False: nothing was done. A key has a row, even if readers do not see it, a value is large, the
        tenant does not exist or may be over a limit, or the group has changed something already.
    """
    keys, sizes = sets.keys, list(map(len, sets.values))
    tenant = usage.of(tenant_of(keys[0]))
    if tenant is None or max(sizes) > LARGE_BYTES or change_log.lines:
        return False
    size = tenant.keys_bytes(keys) + sum(sizes)
    if not tenant.within(len(keys), size) or _any_row(connection, keys):
        return False
    rows = zip(keys, new_ids(len(keys)), sets.values, count(change_log.next_version))
    connection.executemany(INSERT_PLAIN.format("?"), rows)
    change_log.write_created(keys, sum(sizes))
    tenant.entries += len(keys)
    tenant.bytes += size
    return True


def _any_row(connection: sqlite3.Connection, keys: Sequence[str]) -> bool:
    # An export is in order of keys, so there is often no row between the first and the last.
    if connection.execute(_ANY_BETWEEN, (min(keys), max(keys))).fetchone() is None:
        return False
    for marks, batch in key_batches(keys):
        if connection.execute(_ANY_ROW.format(marks), batch).fetchone():
            return True
    return False
