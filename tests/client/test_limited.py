"""A tenant's limits as the client sees them: when it waits, for how long, and what it raises."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tenantbase.client import (
    Changed,
    Client,
    ConnectionFailed,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)
from tenantbase.client.errors import Problem
from tenantbase.client.retrying import Answer, Retries
from tests.scripted import EVENT, STORED, STREAM, Scripted
from tests.servers import poll_async
from tests.service import opened, served, web_settings
from tests.web.blocked import blocked
from tests.wire import SECONDS


async def test_quota_names_its_limit(scripted: Scripted) -> None:
    """The write was not made: the error is not that its outcome is unknown."""
    scripted.will_refuse(507, "quota-exceeded", limit="max_bytes")
    async with Client(scripted.url) as client:
        with pytest.raises(QuotaExceeded) as caught:
            await client.set("k", 1)
    assert caught.value.limit == "max_bytes" and caught.value.problem.status == 507


async def test_rate_limit_is_an_error_at_once(scripted: Scripted) -> None:
    for _ in range(3):
        scripted.will_refuse(429, "rate-limited", Retry_After="7")
    async with Client(scripted.url, attempts=100) as client:
        for call in (client.get("k"), client.set("k", 1), anext(client.watch())):
            with pytest.raises(RateLimited) as caught:
                await call
            assert caught.value.retry_after == 7


async def test_waiting_for_a_rate_limit(scripted: Scripted) -> None:
    """A refused write was not made, so it is sent again; refusals are not attempts."""
    now = asyncio.get_running_loop().time
    async with Client(scripted.url, attempts=1, wait_when_limited=10) as client:
        scripted.will_refuse(429, "rate-limited", Retry_After="1")
        scripted.will_refuse(429, "rate-limited", Retry_After="0")
        scripted.will(200, STORED)
        begun = now()
        assert (await client.set("k", 1)).version == 7
        assert now() - begun >= 1
        scripted.will_refuse(429, "rate-limited", Retry_After="0")
        scripted.will(200, EVENT, **STREAM)
        assert await anext(client.watch()) == Changed("set", "k", 7)


async def test_waiting_for_room_among_requests(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as cache:
        slow = blocked(cache)
        async with served(slow, web_settings(max_requests=1)) as server, asyncio.timeout(SECONDS):
            url = f"http://127.0.0.1:{server.port}"
            async with Client(url) as first, Client(url, attempts=1) as hasty:
                begun = asyncio.create_task(first.set("k", 1))
                await poll_async(lambda: slow.begun == 1, "it is in flight")
                for call in (hasty.set("k", 2), hasty.get("k")):  # a write was not made
                    with pytest.raises(Unavailable) as caught:
                        await call
                    assert caught.value.problem.limit == "max-requests"
                async with Client(url, attempts=1, wait_when_limited=SECONDS) as patient:
                    waiting = asyncio.create_task(patient.set("k", 3))
                    await poll_async(lambda: server.lifecycle.begun >= 4, "it was refused once")
                    slow.gate.set()
                    assert (await begun).version < (await waiting).version


async def test_waiting_for_a_connection(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as cache:
        async with served(cache, web_settings(max_connections=1)) as server:
            url = f"http://127.0.0.1:{server.port}"
            hasty = Client(url, attempts=1)
            patient = Client(url, attempts=1, wait_when_limited=SECONDS)
            async with hasty, patient:
                async with server.wire() as wire:
                    await wire.send(server.request("GET", "/livez"))
                    await wire.answer()  # it is the only connection now
                    with pytest.raises(Unavailable) as caught:
                        await hasty.get("k")
                    assert caught.value.problem.limit == "max-connections"
                    waiting = asyncio.create_task(patient.get("k"))
                    done, _ = await asyncio.wait([waiting], timeout=0.2)
                    assert not done
                assert await waiting is None


async def test_waiting_no_longer_than_allowed(scripted: Scripted) -> None:
    for patience, timeout in ((59.0, 3600.0), (3600.0, 59.0)):
        scripted.will_refuse(429, "rate-limited", Retry_After="60")
        async with Client(
            scripted.url, attempts=100, wait_when_limited=patience, timeout=timeout
        ) as client:
            with pytest.raises(RateLimited):
                await client.get("k")


async def test_watch_that_was_connected_waits_whatever_was_allowed(scripted: Scripted) -> None:
    scripted.will(200, b"retry: 1\n\n" + EVENT, **STREAM)
    scripted.will_refuse(429, "rate-limited", Retry_After="0")
    scripted.will(200, EVENT.replace(b"7", b"8"), **STREAM)
    async with Client(scripted.url, attempts=1) as client, asyncio.timeout(20):
        events = client.watch()
        assert [(await anext(events)).version for _ in range(2)] == [7, 8]


def limited(seconds: int) -> tuple[RateLimited, Answer]:
    problem = Problem(status=429)
    return RateLimited(problem, seconds), Answer(429, {"Retry-After": str(seconds)}, b"")


def test_waits_stay_within_their_sum() -> None:
    for seed in range(100):
        random.seed(seed)
        retries = Retries(attempts=1, wait_when_limited=10)
        waited = []
        while (delay := retries.delay(*limited(3))) is not None:
            waited.append(delay)
        assert all(delay >= 3 for delay in waited)
        assert 1 <= len(waited) <= 3 and sum(waited) <= 10


def test_waits_end_though_the_server_asks_for_none() -> None:
    retries = Retries(attempts=1, wait_when_limited=10)
    delays = []
    while (delay := retries.delay(*limited(0))) is not None:
        delays.append(delay)
    assert len(delays) < 40 and sum(delays) == pytest.approx(10)


def test_rate_limit_takes_no_attempts() -> None:
    retries = Retries(attempts=2, wait_when_limited=10)
    failure = ConnectionFailed("gone")
    assert retries.delay(*limited(1)) is not None
    assert retries.delay(failure) is not None
    assert retries.delay(*limited(1)) is not None
    assert retries.delay(failure) is None
