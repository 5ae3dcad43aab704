"""The promoter loses nothing that was acknowledged, and a deposed primary acknowledges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.cluster.promoter import Promoter, Server
from tests.servers import poll_async


@pytest.fixture
def promoter() -> Iterator[Promoter]:
    with Promoter() as promoter:
        promoter.primary.sql("CREATE TABLE log (number int)", user="tenantbase")
        yield promoter


class Writer:
    """Inserts one number after the other, each as soon as the last one is acknowledged.

    Attributes:
        acknowledged: the highest number that was.
    """

    def __init__(self, server: Server) -> None:
        self.acknowledged = 0
        self._url = server.url()

    async def run(self) -> None:
        """Go on until the connection is lost."""
        connection = await asyncpg.connect(self._url)
        try:
            while True:
                insert = "INSERT INTO log VALUES ($1)"
                await connection.execute(insert, self.acknowledged + 1)
                self.acknowledged += 1
        finally:
            connection.terminate()


def logged(server: Server) -> int:
    """How many numbers a server has."""
    return int(server.sql("SELECT count(*) FROM log"))


async def test_a_promotion_under_load_loses_nothing(promoter: Promoter) -> None:
    deposed = promoter.primary
    writer = Writer(deposed)
    running = asyncio.create_task(writer.run())
    await poll_async(lambda: writer.acknowledged > 100, "it writes")
    promoted = promoter.candidate
    await asyncio.to_thread(promoter.fail_over)
    assert promoter.primary is promoted
    # The deposed primary runs, believes that it is one, and waits for a standby that has left.
    assert deposed.sql("SELECT pg_is_in_recovery()") == "f"
    assert not running.done()
    assert writer.acknowledged <= logged(promoter.primary) <= writer.acknowledged + 1
    running.cancel()
    await asyncio.wait([running])
    # There is a standby again: writes are acknowledged.
    await asyncio.wait_for(asyncio.shield(acknowledged(promoter.primary)), 30)


async def acknowledged(server: Server) -> None:
    """Write, and wait for the acknowledgement."""
    writer = Writer(server)
    running = asyncio.create_task(writer.run())
    await poll_async(lambda: writer.acknowledged > 0, "it writes")
    running.cancel()
    await asyncio.wait([running])


async def test_a_killed_primary_and_a_stopped_standby_are_replaced(promoter: Promoter) -> None:
    writer = Writer(promoter.primary)
    running = asyncio.create_task(writer.run())
    await poll_async(lambda: writer.acknowledged > 100, "it writes")
    standby = promoter.candidate
    assert standby is not None
    standby.pause()
    before = writer.acknowledged
    await asyncio.to_thread(promoter.replace_standby)
    assert promoter.candidate is not standby
    await poll_async(lambda: writer.acknowledged > before + 100, "it writes again")
    promoter.primary.kill()
    await asyncio.wait([running])
    assert running.exception() is not None
    await asyncio.to_thread(promoter.fail_over)
    assert writer.acknowledged <= logged(promoter.primary) <= writer.acknowledged + 1


async def test_without_a_standby_nothing_is_acknowledged(promoter: Promoter) -> None:
    standby = promoter.candidate
    assert standby is not None
    standby.kill()
    writer = Writer(promoter.primary)
    running = asyncio.create_task(writer.run())
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await poll_async(lambda: promoter.primary.sql(waits) == "1", "a COMMIT waits")
    assert writer.acknowledged == 0
    await asyncio.to_thread(promoter.replace_standby)
    await poll_async(lambda: writer.acknowledged > 0, "it is acknowledged")
    running.cancel()
    await asyncio.wait([running])
