"""Every error of the driver ends the connection, and is the store's own error."""

from __future__ import annotations

import asyncio
import gc
import struct
from typing import Any

import pytest

from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import SessionLost
from tests.interfaces.postgres.cluster import opened, replicated
from tests.postgres import PostgresProcess
from tests.servers import FaultProxy

pytestmark = pytest.mark.integration

_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mthe server shuts down\0\0"
_FATAL = b"E" + struct.pack("!i", 4 + len(_FIELDS)) + _FIELDS


async def _connect(address: str) -> Connection:
    url = DatabaseAddress.parse(f"postgresql://tenantbase@{address}/tenantbase?sslmode=disable")
    return await Connection.open(url, url.hosts[0], 10.0)


async def test_a_second_statement_at_the_same_time_loses_the_session(
    postgres: PostgresProcess,
) -> None:
    connection = await _connect(postgres.host)
    first, second = await asyncio.gather(
        connection.fetch("SELECT pg_sleep(60)"),
        connection.fetch("SELECT 1"),
        return_exceptions=True,
    )
    assert isinstance(first, SessionLost) and isinstance(second, SessionLost)
    assert connection.ended


async def test_a_statement_after_a_fatal_error_loses_the_session(
    postgres: PostgresProcess,
) -> None:
    """The driver reads the error while no statement runs, and then refuses to send the next one."""
    async with FaultProxy(postgres.host) as proxy:
        connection = await _connect(proxy.address)
        await connection.fetch("SELECT 1")
        await proxy.say(_FATAL)
        with pytest.raises(SessionLost):
            while True:
                await connection.fetch("SELECT 1")
        assert connection.ended


async def test_a_question_that_both_servers_leave_unanswered_fails_once() -> None:
    """asyncio reports, with a traceback, an error that is never retrieved."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: reported.append(what))
    with replicated() as (primary, standby):
        async with opened(primary, standby, confirm=Confirm.STANDBY, timeout=3.0) as store:
            await store.ask(0)
            primary.pause()
            standby.pause()
            with pytest.raises(StoreUnavailable):
                await store.ask(0)
            standby.resume()
            primary.resume()
    gc.collect()
    assert reported == []
