"""PostgreSQL passes the tests of all stores."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from tenantbase.interfaces.postgres import prefixes
from tenantbase.interfaces.store import LocalStore as Store
from tests.fakes import FakeStore, Tables
from tests.interfaces import test_store as contract
from tests.interfaces.shared import OneMachine

pytestmark = pytest.mark.integration

_OF_SQLITE = {"test_two_stores_never_differ"}
globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and name not in _OF_SQLITE
    }
)


@pytest.fixture
async def reopen(used_database: str) -> AsyncIterator[contract.Opener]:
    """As the fixture of all stores."""
    opened: list[OneMachine] = []
    await OneMachine.empty(used_database)

    async def open_store(*, change_log_size: int = 65_536) -> OneMachine:
        if opened:
            await opened[-1].close()
        opened.append(await OneMachine.open(used_database, change_log_size=change_log_size))
        return opened[-1]

    yield open_store
    if opened:
        await opened[-1].close()


@pytest.fixture
async def store(reopen: contract.Opener) -> Store:
    return await reopen()


@pytest.mark.parametrize("seed", range(4))
async def test_it_never_differs_from_the_fake(
    database: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random groups in both: the same outcomes, entries, usage and log, at every step."""
    monkeypatch.setattr(prefixes, "ONE_BY_ONE", 2)
    rng = random.Random(seed)
    real = await OneMachine.open(database, change_log_size=40)
    fake = FakeStore(Tables(), change_log_size=40, one_by_one=2)
    now = contract.NOW
    try:
        for _ in range(60):
            now += rng.choice([0.0, 0.25, 1.0])
            version = await fake.last_version()
            group = [
                contract.some_claim(rng, now, version) for _ in range(rng.choice([1, 1, 3, 8]))
            ]
            prefix = rng.choice(["", "default/a", "t/", "u/c"])
            wanted = contract.some_range(rng)
            expected = await contract.seen(fake, group, now, prefix, wanted)
            assert await contract.seen(real, group, now, prefix, wanted) == expected
    finally:
        await real.close()
