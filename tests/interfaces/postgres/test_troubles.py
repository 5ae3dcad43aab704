"""A trouble of the server is shown for as long as it lasts, and logged once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tenantbase.commands import Delete, Set
from tenantbase.entry import JSON, Entry
from tenantbase.errors import Damaged, StoreError
from tenantbase.interfaces.postgres import state
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.driver_errors import ReadOnly
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.troubles import Trouble
from tests.fakes import Granted
from tests.interfaces.postgres.cluster import (
    KEY,
    again,
    opened,
    outcome,
    put,
    replicated,
    value_of,
)
from tests.interfaces.shared import name_hash
from tests.postgres import SUPERUSER, PostgresProcess
from tests.servers import READY_SECONDS

pytestmark = pytest.mark.integration

_PAGE_BYTES = 8_192


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresProcess]:
    """A server for the tests in this module, which change its settings."""
    with PostgresProcess() as server:
        server.sql("GRANT pg_read_all_stats TO tenantbase")
        yield server


@asynccontextmanager
async def alone(server: PostgresProcess, timeout: float = 30.0) -> AsyncIterator[PostgresStore]:
    """A store on a server without a standby."""
    async with opened(server, confirm=Confirm.NONE, replicated=False, timeout=timeout) as store:
        yield store


async def until(check: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until a check holds."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await check():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


def lines(caplog: pytest.LogCaptureFixture, trouble: Trouble) -> list[str]:
    """The log lines about a trouble."""
    return [text for text in caplog.messages if text.startswith(f"{trouble}: ")]


async def test_a_read_only_primary_goes_on_reading(
    server: PostgresProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with alone(server) as store:
        await put(store, KEY)
        assert (await store.size()).entries and store.troubles == []
        server.configure(default_transaction_read_only="on")
        try:
            await until(lambda: _refused(store, ReadOnly), "writes are refused, whoever asks first")
            assert store.troubles == [Trouble.READ_ONLY]
            assert await value_of(store) == b"1"
            assert store.sessions_lost == 0
            async with alone(server) as another:
                assert await value_of(another) == b"1"
                await another.size()
                assert another.troubles == [Trouble.READ_ONLY]
        finally:
            server.configure(default_transaction_read_only="off")
        await until(lambda: _over(store), "the trouble is over")
        await put(store, KEY)
    told, over = lines(caplog, Trouble.READ_ONLY)[:1], lines(caplog, Trouble.READ_ONLY)[-1:]
    assert "default_transaction_read_only" in told[0] and ": over" in over[0]


async def _refused(store: PostgresStore, kind: type[StoreError]) -> bool:
    return isinstance(await outcome(store, Set(KEY, b"2", JSON)), kind)


async def _over(store: PostgresStore) -> bool:
    await store.size()
    return store.troubles == []


async def test_a_long_transaction_is_noticed(
    server: PostgresProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state, "LONG_SECONDS", 0.5)
    async with alone(server) as store:

        async def noticed() -> bool:
            await store.size()
            return store.troubles == [Trouble.LONG_TRANSACTION]

        other = await asyncpg.connect(server.url(user=SUPERUSER))
        await other.execute("BEGIN; SELECT * FROM tenantbase.clock")
        await until(noticed, "it is noticed")
        await other.close()
        await until(lambda: _over(store), "it is over")
    begin, end = lines(caplog, Trouble.LONG_TRANSACTION)
    assert f"of the user {SUPERUSER} has had a transaction open" in begin and ": over" in end


async def test_commits_that_are_kept_too_long_are_noticed(
    server: PostgresProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = 2
    monkeypatch.setattr(state, "KEPT_COMMITS", kept)
    monkeypatch.setattr(state, "KEPT_COMMITS_SECONDS", -1.0)
    async with alone(server) as store:
        for number in range(state.LATE_FACTOR * kept + 2):
            await put(store, f"default/{number}")
        await store.size()
        assert store.troubles == [Trouble.TRIMMED_LATE]


@pytest.mark.parametrize("confirm", [Confirm.COMMIT, Confirm.STANDBY])
async def test_a_standby_that_does_not_confirm_is_named(
    confirm: Confirm, caplog: pytest.LogCaptureFixture
) -> None:
    with replicated() as (primary, standby):
        async with opened(primary, standby, confirm=confirm, timeout=1.0) as store:
            await put(store, KEY)
            for hurt, mend in ((standby.pause, standby.resume), (standby.kill, standby.start)):
                caplog.clear()
                hurt()
                await until(lambda: _not_confirmed(store), "the trouble is noticed")
                with pytest.raises(StoreError) as caught:
                    await store.ask(0)
                assert "standby" in str(caught.value)
                assert "127.0.0.1" not in str(caught.value)  # clients see it
                mend()
                await again(store)
                assert store.troubles == []
                begin, end = lines(caplog, Trouble.NOT_CONFIRMED)
                assert f"{primary.host}: its synchronous standby 'standby'" in begin
                assert "(--store-timeout)" in begin and ": over" in end


async def _not_confirmed(store: PostgresStore) -> bool:
    try:
        await store.ask(0)
    except StoreError:
        pass
    return store.troubles == [Trouble.NOT_CONFIRMED]


async def test_a_server_that_names_no_standby_any_more(caplog: pytest.LogCaptureFixture) -> None:
    with replicated() as (primary, standby):
        async with opened(primary, standby, timeout=1.0) as store:
            primary.configure(synchronous_standby_names="")
            await until(lambda: _not_confirmed(store), "the trouble is noticed")
            primary.configure(synchronous_standby_names="standby")
            await again(store)
            assert store.troubles == []
    assert "synchronous_standby_names has changed from 'standby' to ''" in caplog.text
    begin, *_ = lines(caplog, Trouble.NOT_CONFIRMED)
    assert "it has no synchronous standby: set synchronous_standby_names" in begin


async def test_a_connection_that_the_server_ends_says_so(
    server: PostgresProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """Even one that was idle: asyncpg itself says no more than that it is closed."""
    async with alone(server) as store:
        await put(store, KEY)
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tenantbase'"
        )
        await again(store)
        assert await value_of(store) == b"1"
    (text,) = [text for text in caplog.messages if "session with the database was lost" in text]
    assert f": {server.host}: the server " in text and "connection is closed" not in text


async def test_only_damaged_rows_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    bad, good = "default/bad", "default/good"
    with PostgresProcess() as server:
        async with alone(server) as store:
            await put(store, bad, os.urandom(20 * _PAGE_BYTES))
            await put(store, good, b"2")
        where = server.sql(
            "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class"
            " WHERE oid = 'tenantbase.entries'::regclass"
        )
        server.stop()
        with open(server.data / where, "r+b") as file:
            file.seek(_PAGE_BYTES // 2)
            file.write(os.urandom(16))  # the page's checksum is wrong now
        server.start()
        async with alone(server) as store:
            entries, _ = await store.read_stamped([good, bad, "default/none", good])
            first, damaged, none, again_ = entries
            assert isinstance(first, Entry) and first.value == b"2" and again_ == first
            assert isinstance(damaged, Damaged) and none is None
            assert store.troubles == [Trouble.DAMAGED_ROWS]
            group = [Granted(Set(good, b"3", JSON)), Granted(Delete(bad))]
            made = (await store.commit(group, name_hash)).outcomes
            assert isinstance(made[0], tuple)
            assert await value_of(store, good) == b"3"
    assert len(lines(caplog, Trouble.DAMAGED_ROWS)) == 1


async def test_a_row_that_cannot_be_read_fails_alone_in_a_group() -> None:
    with PostgresProcess() as server:
        async with alone(server) as store:
            for number in range(400):  # several pages
                await put(store, f"default/{number:03}", b"x" * 100)
        where = server.sql("SELECT pg_relation_filepath('tenantbase.entries')")
        server.stop()
        with open(server.data / where, "r+b") as file:
            file.seek(_PAGE_BYTES // 2)
            file.write(os.urandom(16))
        server.start()
        async with alone(server) as store:
            pair = [
                Granted(Set("default/000", b"3", JSON)),
                Granted(Set("default/399", b"3", JSON)),
            ]
            bad, good = (await store.commit(pair, name_hash)).outcomes
            assert isinstance(bad, Damaged) and isinstance(good, tuple)
            assert await value_of(store, "default/399") == b"3"
            assert store.troubles == [Trouble.DAMAGED_ROWS]


async def test_a_standby_that_is_not_connected_is_told() -> None:
    with replicated() as (primary, standby):
        async with opened(primary, standby, confirm=Confirm.COMMIT, timeout=30.0) as store:

            async def present() -> bool:
                server = (await store.size()).server
                assert server is not None and server.standby == "standby"
                return server.standby_present

            assert await present()
            standby.kill()

            async def absent() -> bool:
                return not await present()

            await until(absent, "the primary has noticed")
            # A session that is confirmed by COMMIT has no connection to the standby to lose.
            assert store.sessions_lost == 0
            standby.start()
            await until(present, "it is back")
