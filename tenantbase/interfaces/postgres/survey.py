"""Asks servers about themselves, and refuses those that do not keep what they acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from tenantbase.errors import CannotOpen, StoreError
from tenantbase.interfaces.postgres.address import Host
from tenantbase.interfaces.postgres.confirmation import candidate
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import (
    DRIVER_ERRORS,
    NotConfirmed,
    SessionLost,
    reason,
)
from tenantbase.troubles import Trouble

ERRORS: Final = (StoreError, *DRIVER_ERRORS, ValueError)  # ValueError: an option of the URL

# The first releases whose backends wait for the standby as soon as the server starts. Those of earlier
# ones wait only once the checkpointer has read the setting.
_FLOORS: Final = {15: 13, 16: 9, 17: 5}
_OLDEST: Final = min(_FLOORS)

FACTS: Final = """
    SELECT pg_is_in_recovery(), system_identifier, current_setting('server_version_num')::integer,
        current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
        current_setting('fsync'), current_setting('full_page_writes'),
        current_setting('server_encoding'),
        CASE WHEN NOT pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
    FROM pg_control_system()
"""
NO_ANSWER: Final = "no answer in time (--store-timeout)"
# Every role may see what its own sessions wait for.
_WAITS: Final = """
    SELECT EXISTS (
            SELECT FROM pg_stat_activity
            WHERE wait_event = 'SyncRep' AND datname = current_database()
        ), EXISTS (SELECT FROM pg_stat_replication WHERE lower(application_name) = lower($1))
"""
CONFIRM: Final = "SELECT pg_logical_emit_message(true, 'tenantbase', '')"


class _NoStandby(CannotOpen):
    """The server names no standby, or several."""

    trouble = Trouble.NOT_CONFIRMED


class Found(NamedTuple):
    """What a server says about itself.

    Attributes:
        timeline: on which it writes; 0 for a standby.
    """

    connection: Connection
    in_recovery: bool
    system: int
    version: int
    standby_names: str
    synchronous_commit: str
    fsync: str
    full_page_writes: str
    encoding: str
    timeline: int


async def survey(
    hosts: Sequence[Host], connect: Callable[[Host], Awaitable[Connection]], timeout: float
) -> list[Found | str]:
    """Ask all servers at once. Returns: what each says about itself, or why it says nothing."""
    return await asyncio.gather(*(_ask(host, connect, timeout) for host in hosts))


async def _ask(
    host: Host, connect: Callable[[Host], Awaitable[Connection]], timeout: float
) -> Found | str:
    try:
        connection = await connect(host)
        with deadline(connection, timeout):
            ((*facts, timeline),) = await connection.fetch(FACTS)
    except ERRORS as error:
        return f"{host}: {why(error)}"
    return Found._make([connection, *facts, int(timeline or "0", 16)])


def primaries_of(found: Sequence[Found]) -> list[Found]:
    """The servers that are not in recovery, the one on the highest timeline first: others were
    deposed."""
    primaries = [each for each in found if not each.in_recovery]
    return sorted(primaries, key=lambda each: each.timeline, reverse=True)


async def check_confirms(connection: Connection, standby: str, timeout: float) -> None:
    """Find out whether the node's COMMIT waits for the standby, or for a lock held by one that does.

    Args:
        connection: another one to the primary, on which nothing waits.

    Raises:
        NotConfirmed: it does.
    """
    with deadline(connection, timeout):
        ((waits, present),) = await connection.fetch(_WAITS, standby)
    if waits:
        raise NotConfirmed(
            f"its synchronous standby {standby!r} does not confirm commits within"
            f" {timeout:g} s (--store-timeout)" + ("" if present else ": it is not connected")
        )


def check_settings(server: Found) -> None:
    """Refuse a primary that does not keep what it acknowledges.

    Raises:
        CannotOpen: what is wrong, as part of a sentence about the server.
    """
    major, minor = divmod(server.version, 10_000)
    floor = _FLOORS.get(major, 0)
    if major < _OLDEST or minor < floor:
        needed = f"{max(major, _OLDEST)}.{_FLOORS[max(major, _OLDEST)]}"
        raise CannotOpen(f"PostgreSQL {major}.{minor} is too old; {needed} or newer is needed")
    if server.encoding != "UTF8":
        raise CannotOpen(
            f"the encoding of the database is {server.encoding}; it must be UTF8 (CREATE DATABASE"
            " ... ENCODING 'UTF8' TEMPLATE template0)"
        )
    if server.synchronous_commit not in ("on", "remote_apply"):
        raise CannotOpen(f"synchronous_commit is {server.synchronous_commit!r}; it must be 'on'")
    if server.fsync != "on" or server.full_page_writes != "on":
        raise CannotOpen("fsync and full_page_writes must be on: a power failure would lose data")


def standby_of(server: Found) -> str:
    """The name of the only standby that commits wait for. Raises CannotOpen."""
    names = server.standby_names
    if names.strip() in ("", "*"):
        raise _NoStandby(
            "it has no synchronous standby: set synchronous_standby_names (with Patroni,"
            " synchronous_mode and synchronous_mode_strict), or use --store-unreplicated"
        )
    name = candidate(names)
    if name is None:
        raise _NoStandby(
            f"synchronous_standby_names is {names!r}: it must name exactly one standby (with"
            " Patroni, synchronous_node_count: 1)"
        )
    return name


def why(error: BaseException) -> str:
    if isinstance(error, SessionLost):
        return error.why
    return str(error) if isinstance(error, StoreError) else reason(error)


@contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Close the connection if the block takes longer."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, connection.terminate, NO_ANSWER)
    try:
        yield
    finally:
        timer.cancel()
