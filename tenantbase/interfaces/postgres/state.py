"""What the server says about itself: the size of the database, and troubles."""

from __future__ import annotations

from typing import Final, NamedTuple

from tenantbase.interfaces.postgres.alone import KEPT_COMMITS, KEPT_COMMITS_SECONDS
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.store import ServerState, StoreSize
from tenantbase.troubles import Trouble

LONG_SECONDS: Final = 300.0
"""A transaction that is open for longer keeps too many versions of the clock's row."""

LATE_FACTOR: Final = 2
"""Sweeps fall behind if the list has this many times the commits that are kept, and goes back this many
times as far."""

# Without the role pg_read_all_stats, the transactions of other users cannot be seen.
_STATE: Final = """
    WITH totals AS (SELECT sum(entries) AS entries, sum(bytes) AS bytes FROM tenants),
    oldest AS (SELECT number, at FROM commits WHERE number > 0 ORDER BY number LIMIT 1),
    longest AS (
        SELECT clock_timestamp() - since AS age, holder FROM (
            SELECT xact_start AS since, format('process %s of the user %s', pid, usename) AS holder
                FROM pg_stat_activity
                WHERE datname = current_database() AND backend_type = 'client backend'
            UNION ALL
            SELECT prepared, format('the prepared transaction %L', gid) FROM pg_prepared_xacts
                WHERE database = current_database()
        ) AS open WHERE since IS NOT NULL ORDER BY since LIMIT 1
    )
    SELECT coalesce(totals.entries, 0)::bigint, coalesce(totals.bytes, 0)::bigint,
        pg_database_size(current_database()),
        (SELECT max(age(datfrozenxid)) FROM pg_database),
        sender.pid IS NOT NULL,
        pg_wal_lsn_diff(pg_current_wal_lsn(), sender.replay_lsn)::bigint,
        current_setting('default_transaction_read_only') = 'on',
        extract(epoch FROM longest.age)::double precision, longest.holder,
        clock.groups - oldest.number, present() - oldest.at
    FROM clock CROSS JOIN totals LEFT JOIN oldest ON true LEFT JOIN longest ON true
        LEFT JOIN (
            SELECT pid, replay_lsn FROM pg_stat_replication
            WHERE lower(application_name) = lower($1) LIMIT 1
        ) AS sender ON true
"""


class State(NamedTuple):
    """Attributes:
    troubles: by kind, a text for the log; None: there is no such trouble.
    """

    size: StoreSize
    troubles: dict[Trouble, str | None]


async def read_state(session: Session, connection: Connection) -> State:
    """What the primary says. Raises as ``Connection.fetch``."""
    (row,) = await connection.fetch(_STATE, session.standby)
    entries, size, database_bytes, xid_age, present, lag, *more = row
    read_only, age, holder, kept, kept_for = more
    primary = str(connection.host)
    server = ServerState(primary, session.standby or None, present, lag, xid_age)
    troubles: dict[Trouble, str | None] = dict.fromkeys(
        (Trouble.READ_ONLY, Trouble.LONG_TRANSACTION, Trouble.TRIMMED_LATE)
    )
    if read_only:
        troubles[Trouble.READ_ONLY] = (
            f"{primary} refuses writes: default_transaction_read_only is on"
        )
    if age is not None and age > LONG_SECONDS:
        troubles[Trouble.LONG_TRANSACTION] = (
            f"{holder} has had a transaction open for {age:,.0f} s; it keeps old versions of the row"
            " that every write changes"
        )
    if kept is not None and kept > LATE_FACTOR * KEPT_COMMITS:
        if kept_for > LATE_FACTOR * KEPT_COMMITS_SECONDS:
            troubles[Trouble.TRIMMED_LATE] = (
                f"{kept:,} commits are listed, the oldest for {kept_for:,.0f} s; sweeps fail, or are"
                " too slow"
            )
    return State(StoreSize(entries, size, database_bytes, 0, None, server), troubles)
