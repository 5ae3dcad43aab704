"""Answers count only if the synchronous standby confirms them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tenantbase.errors import CannotOpen, OutcomeUnknown, StoreUnavailable
from tenantbase.figures import SESSIONS_LOST, SessionLoss, private_cells
from tenantbase.interfaces.postgres.confirmation import Confirm, candidate
from tenantbase.interfaces.postgres.joining import begins_after
from tenantbase.listing import KeyRange
from tests.interfaces.postgres.cluster import (
    INCREMENT,
    KEY,
    again,
    opened,
    outcome,
    put,
    replicated,
    value_of,
)
from tests.postgres import PostgresProcess
from tests.servers import poll_async

pytestmark = pytest.mark.integration

MODES = [Confirm.COMMIT, Confirm.STANDBY]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def pair() -> Iterator[tuple[PostgresProcess, PostgresProcess]]:
    with replicated() as servers:
        yield servers


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ("a", "a"),
        ('"node-1"', "node-1"),
        ('"odd "" name"', 'odd " name'),
        ("1 (a)", "a"),
        ('ANY 1 ("a")', "a"),
        ("first 1(a)", "a"),
        ("", None),
        ("*", None),
        ("1 (*)", None),
        ("a, b", None),
        ("ANY 1 (a, b)", None),
        ("2 (a, b)", None),
        ("2 (a)", None),
    ],
)
def test_one_standby_is_the_only_candidate(names: str, name: str | None) -> None:
    assert candidate(names) == name


@pytest.mark.parametrize("mode", MODES)
async def test_a_deposed_primary_confirms_nothing(
    pair: tuple[PostgresProcess, PostgresProcess], mode: Confirm
) -> None:
    primary, standby = pair
    async with opened(primary, standby, confirm=mode, timeout=3.0, write_timeout=3.0) as store:
        entry = await put(store, KEY)
        assert (await store.ask(0)).position == entry.version
        standby.promote()
        assert primary.sql("SELECT pg_is_in_recovery()") == "f", "it does not know"
        assert primary.sql("SELECT count(*) FROM tenantbase.entries") == "1"
        answers = await asyncio.gather(
            store.ask(0),
            store.read_stamped([KEY]),
            store.scan(KeyRange(), 10, 100, 0.0),
            store.changes(0, 10),
            store.last_version(),
            store.access(None),
            store.check(),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [StoreUnavailable] * len(answers)
        assert isinstance(await outcome(store, INCREMENT), StoreUnavailable | OutcomeUnknown)


@pytest.mark.parametrize("mode", MODES)
async def test_a_promoted_standby_goes_on_where_the_primary_was(
    pair: tuple[PostgresProcess, PostgresProcess], mode: Confirm
) -> None:
    primary, standby = pair
    async with opened(primary, standby, confirm=mode) as store:
        entry = await put(store, KEY)
        (first,) = (await store.ask(0)).terms
        primary.pause()  # it is stopped, and will answer again
        standby.promote()
        third = standby.standby("third")
        async with opened(standby, third, confirm=mode) as other:
            index = await other.ask(0)
            assert index.terms[1] == first
            assert index.terms[0].inherited == entry.version
            assert index.position == begins_after(index.terms[0])
            assert await value_of(other) == b"1"
            assert (await put(other, KEY, b"2")).version == index.position + 1
            inherited, last = entry.version, index.position + 1
            assert (await other.changes(inherited, 9))[0][0].version == last
            assert await other.changes(inherited + 1, 9) == ([], False), "of a lost history"
        primary.resume()
        await again(store)
        assert (await store.ask(0)).terms == index.terms, "it has left the deposed primary"
        assert await value_of(store) == b"2"


@pytest.mark.parametrize("mode", MODES)
async def test_without_its_standby_nothing_is_confirmed(
    pair: tuple[PostgresProcess, PostgresProcess], mode: Confirm
) -> None:
    primary, standby = pair
    figures = private_cells()
    async with opened(
        primary, standby, confirm=mode, timeout=3.0, write_timeout=3.0, figures=figures
    ) as store:
        await put(store, KEY)
        standby.kill()
        with pytest.raises(StoreUnavailable):
            await store.ask(0)
        why = SessionLoss.TIMEOUT if mode is Confirm.COMMIT else SessionLoss.CONNECTION
        assert isinstance(await outcome(store, INCREMENT), StoreUnavailable | OutcomeUnknown)
        assert figures[SESSIONS_LOST[why]] == 1
        standby.start()
        await again(store)


async def test_a_cancelled_wait_for_the_standby_acknowledges_nothing(
    pair: tuple[PostgresProcess, PostgresProcess],
) -> None:
    primary, standby = pair
    figures = private_cells()
    async with opened(
        primary, standby, confirm=Confirm.COMMIT, timeout=20.0, figures=figures
    ) as store:
        await put(store, KEY, b"1")
        standby.pause()
        writing = asyncio.ensure_future(outcome(store, INCREMENT))
        await poll_async(lambda: primary.sql(WAITING) == "1", "the commit waits")
        primary.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        )
        visible = f"SELECT convert_from(value, 'UTF8') FROM tenantbase.entries WHERE key = '{KEY}'"
        await poll_async(lambda: primary.sql(visible) == "2", "the primary shows it")
        lost = SESSIONS_LOST[SessionLoss.WARNING]
        await poll_async(lambda: figures[lost] == 1, "the session is abandoned")
        assert not writing.done(), "the standby does not have it"
        standby.resume()
        made = await writing
        assert isinstance(made, tuple) and made[0].entry is not None
        assert made[0].entry.value == b"2"
        assert await value_of(store) == b"2"


async def test_a_cancelled_caller_cancels_no_commit(
    pair: tuple[PostgresProcess, PostgresProcess],
) -> None:
    primary, standby = pair
    async with opened(primary, standby, confirm=Confirm.COMMIT, timeout=20.0) as store:
        await put(store, KEY, b"1")
        standby.pause()
        callers = [asyncio.ensure_future(outcome(store, INCREMENT))]
        callers.append(asyncio.ensure_future(store.ask(0)))  # type: ignore[arg-type]
        await poll_async(lambda: primary.sql(WAITING) == "2", "both wait for the standby")
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)
        try:
            # A cancellation would have a connection of its own: many others leave it the time.
            for _ in range(20):
                assert await asyncio.to_thread(primary.sql, WAITING) == "2", "they still do"
        finally:
            standby.resume()
        # Others do not see a transaction that waits for the standby until its commit returns.
        async with asyncio.timeout(20):
            while await value_of(store) != b"2":
                await asyncio.sleep(0.01)
        assert store.sessions_lost == 0
        assert "cancel" not in (primary.directory / "log").read_text()


async def test_a_node_stops_when_synchronous_replication_is_turned_off(
    pair: tuple[PostgresProcess, PostgresProcess],
) -> None:
    primary, standby = pair
    figures = private_cells()
    async with opened(primary, standby, timeout=3.0, write_timeout=3.0, figures=figures) as store:
        await put(store, KEY, b"1")
        for names in ("", "*", "ANY 1 (standby, other)"):
            primary.configure(synchronous_standby_names=names)
            assert isinstance(await outcome(store, INCREMENT), StoreUnavailable), names
            with pytest.raises(StoreUnavailable):
                await store.ask(0)
            with pytest.raises(CannotOpen, match="standby"):
                async with opened(primary, standby):
                    pass
            # Each change must be noticed in a session that the node trusts.
            primary.configure(synchronous_standby_names="standby")
            await again(store)
        assert await value_of(store) == b"1"
        assert figures[SESSIONS_LOST[SessionLoss.STANDBY]] > 0
