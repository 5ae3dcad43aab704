"""Two servers behind load balancers are restarted and killed under load, and no client notices.

Both servers use one database and one memcached. A real HAProxy and a real nginx, with the project's
configurations, send them requests all the time. Reads may never fail. Neither may writes, as long
as servers are only asked to stop: a balancer may not send a write again that it lost an answer to.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from tests.app_server import AppServer
from tests.haproxy import HAProxy
from tests.nginx import DEPLOYED, Nginx
from tests.servers import MemcachedProcess, poll, poll_async

SECONDS = 30.0
CLIENTS = 3  # of each balancer
NGINX_FAIL_SECONDS = 1.0  # in its configuration
OPTIONS = ("--workers", "2", "--drain-delay", "4")


@dataclass
class Client:
    """Counts on a key of its own, and reads it after each step.

    Attributes:
        acknowledged: increments that were.
        unknown: increments whose answer was lost.
        unknown_puts: the same, of a request that nginx sends only once.
        faults: what may never happen.
    """

    port: int
    key: str
    acknowledged: int = 0
    unknown: int = 0
    unknown_puts: int = 0
    reads: int = 0
    stopped: bool = False
    faults: list[str] = field(default_factory=list)

    async def run(self, session: aiohttp.ClientSession) -> None:
        url = f"http://127.0.0.1:{self.port}/get-value"
        while not self.stopped:
            if await self._increment(session):
                self.acknowledged += 1
            else:
                self.unknown += 1
            self.unknown_puts += not await self._put(session)
            async with session.get(url, params={"key": self.key}) as answer:
                text = await answer.text()
                if answer.status == 200:
                    self.check(msgspec.json.decode(text)["value"])
                elif answer.status != 404 or self.acknowledged:
                    self.faults.append(f"a read: {answer.status} {text[:200]}")
            self.reads += 1

    async def _increment(self, session: aiohttp.ClientSession) -> bool:
        body = msgspec.json.encode({"key": self.key})
        return await self._write(session, "POST", "/increment-value", body)

    async def _put(self, session: aiohttp.ClientSession) -> bool:
        return await self._write(session, "PUT", f"/v1/values/{self.key}/raw", b"x")

    async def _write(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes
    ) -> bool:
        """Returns: whether it was acknowledged. Otherwise it may have been made."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            async with session.request(method, url, data=body) as answer:
                await answer.read()
                assert answer.status in (200, 201, 502), answer
                return answer.status != 502
        except aiohttp.ServerDisconnectedError:
            return False  # HAProxy does so if a kept-alive connection to the server breaks

    def check(self, value: int) -> None:
        if not self.acknowledged <= value <= self.acknowledged + self.unknown:
            self.faults.append(f"{value} after {self.acknowledged} and perhaps {self.unknown}")


class Load:
    """All clients, and what has happened to them."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients

    async def goes_on(self) -> None:
        """Wait until every client has made progress."""
        marks = [client.reads + 5 for client in self.clients]
        await poll_async(
            lambda: all(
                client.reads >= mark for client, mark in zip(self.clients, marks, strict=True)
            ),
            "every client makes progress",
            SECONDS,
        )
        self.check()

    def check(self) -> None:
        assert [fault for client in self.clients for fault in client.faults] == []

    def check_writes(self, haproxy: int) -> None:
        """As long as no server was killed."""
        self.check()
        assert not any(client.unknown for client in self.clients)
        assert not any(client.unknown_puts for client in self.clients if client.port == haproxy)


@asynccontextmanager
async def loaded(*ports: int) -> AsyncIterator[Load]:
    clients = [Client(port, f"{port}/{number}") for port in ports for number in range(CLIENTS)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as session:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(session))
            load = Load(clients)
            yield load
            for client in clients:
                client.stopped = True
        load.check()


async def test_nobody_notices(tmp_path: Path) -> None:
    for name in ("haproxy", "nginx"):
        (tmp_path / name).mkdir()
    database = tmp_path / "x.db"
    with (
        MemcachedProcess() as memcached,
        AppServer(database, *OPTIONS, "--memcached", memcached.address) as one,
        AppServer(database, *OPTIONS, "--memcached", memcached.address) as two,
        HAProxy(tmp_path / "haproxy", one.port, two.port, often=False) as haproxy,
        Nginx(tmp_path / "nginx", one.port, DEPLOYED, second=two.port) as nginx,
    ):

        async def both_up() -> None:
            await asyncio.to_thread(
                poll, lambda: haproxy.up() == {"one", "two"}, "both are up", SECONDS
            )
            # nginx takes a server back after its fail_timeout, and does not say when.
            await asyncio.sleep(2 * NGINX_FAIL_SECONDS)

        await both_up()
        async with loaded(haproxy.port, nginx.port) as load:
            await load.goes_on()
            for server in (one, two):  # a rolling restart
                assert await asyncio.to_thread(server.stop) == 0
                await load.goes_on()
                load.check_writes(haproxy.port)
                await asyncio.to_thread(server.start)
                await both_up()
                await load.goes_on()
            memcached.restart()
            await load.goes_on()
            load.check_writes(haproxy.port)

            worker, *_ = one.workers
            os.kill(worker, signal.SIGKILL)
            await load.goes_on()
            await asyncio.to_thread(poll, lambda: len(one.workers) == 2, "it is replaced", SECONDS)
            await load.goes_on()
            await both_up()
            await asyncio.to_thread(two.kill)
            await load.goes_on()
            await asyncio.to_thread(two.start)
            await both_up()
            await load.goes_on()
        for client in load.clients:
            assert client.acknowledged > 20
            value = one.ask("GET", f"/get-value?key={client.key}").json["value"]
            client.check(value)
        load.check()
