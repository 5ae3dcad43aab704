"""Servers with workers on one database and one memcached, or a ring of several, as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self

from tests.app_server import AppServer
from tests.faults import stalls, strace
from tests.faults.control import Control
from tests.faults.sealed_items import ItemCollector
from tests.servers import FaultProxy, MemcachedProcess

CACHE_SECONDS: Final = 0.1
WRITE_SECONDS: Final = 5.0


class TorturedServer(AppServer):
    """A server process of the service that calls the control at every step.

    Args:
        database: its file.
        control: the directory of the control.
        bug: a planted bug, or None.
        injected: a fault for ``strace -e inject=`` while the server runs.
        options: of ``tenantbase serve``.
    """

    def __init__(
        self,
        database: Path,
        control: Path,
        *options: str,
        bug: str | None = None,
        injected: str | None = None,
    ) -> None:
        super().__init__(database, *options)
        self._control = control
        self._bug = bug
        self._injected = injected
        self.worker_count = (
            int(options[options.index("--workers") + 1]) if "--workers" in options else 1
        )

    def spawn(self) -> None:
        assert self._process is None, "the server is already running"
        command = [sys.executable, "-W", "error", "-m", "tests.faults.server", str(self._control)]
        command += ["--break", self._bug] if self._bug else []
        # Under strace, every system call is slow.
        command += ["--unwatched"] if self._injected else []
        command += ["--", "serve", "--database", str(self.database), "--port", str(self.port)]
        command += self._options
        if self._injected:
            command = strace.injecting(self._injected, command)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )

    @property
    def workers(self) -> list[int]:
        """The current worker processes, the children of the supervisor; there may be none."""
        process = self._process
        if process is None:  # it is being restarted
            return []
        supervisors = _children(process.pid) if self._injected else [process.pid]
        return [worker for pid in supervisors for worker in _children(pid)]

    def kill(self) -> None:
        """Kill it with SIGKILL, and also the process under strace."""
        supervisors = _children(self.pid) if self._injected else []
        self._signal_all([*supervisors, *self.workers], signal.SIGKILL)
        super().kill()


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


class Memcached(MemcachedProcess):
    """A memcached that can be restarted with different options."""

    def restart_with(self, *options: str) -> None:
        """Kill it and start it, empty, with these options and no others."""
        self.kill()
        self._options = options
        self.start()


class Cluster:
    """The servers, memcacheds and proxies of a torture test. An async context manager.

    The first server reaches a single memcached directly, each of the others through its own proxy.
    Several memcacheds are a ring, and each has one proxy that all servers use: a memcached's place
    in the ring depends on its address.

    Args:
        directory: for the database and the control; empty at first.
        servers, workers: the number of servers, and of workers in each.
        memcacheds: their number.
        proxies: of a single memcached, if not one for each server but the first.
        bug: planted in all servers.

    Attributes:
        memcached: the first one.
        token: for the tenant ``default``; empty while the servers need none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        servers: int = 2,
        workers: int = 1,
        memcacheds: int = 1,
        proxies: int | None = None,
        bug: str | None = None,
    ) -> None:
        self.database = directory / "x.db"
        self.control = Control(directory / "control")
        self.memcacheds = [Memcached() for _ in range(memcacheds)]
        self.memcached = self.memcacheds[0]
        if memcacheds > 1:
            self.proxies = [FaultProxy(each.address) for each in self.memcacheds]
            reached = [",".join(proxy.address for proxy in self.proxies)] * servers
        else:
            count = servers - 1 if proxies is None else proxies
            self.proxies = [FaultProxy(self.memcached.address) for _ in range(count)]
            reached = [self.memcached.address, *(proxy.address for proxy in self.proxies)]
        self.collector = ItemCollector()
        self.token = ""
        self._bug = bug
        self.servers = [
            self.server(address, "--workers", str(workers)) for address in reached[:servers]
        ]
        self._stack = AsyncExitStack()

    def server(
        self,
        memcached: str,
        *options: str,
        injected: str | None = None,
    ) -> TorturedServer:
        """One more server on the same database, not started."""
        fixed = ["--memcached", memcached, "--cache-timeout", str(CACHE_SECONDS)]
        fixed += ["--write-timeout", str(WRITE_SECONDS), "--drain-timeout", "5"]
        return TorturedServer(
            self.database,
            self.control.directory,
            *fixed,
            *options,
            bug=self._bug,
            injected=injected,
        )

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    def stalls(self) -> list[stalls.Stall]:
        """The stalls that the servers' event loops reported."""
        return stalls.told(self.control.directory)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for memcached in self.memcacheds:
                stack.enter_context(memcached)
            for proxy in self.proxies:
                await stack.enter_async_context(proxy)
            for server in self.servers:
                stack.callback(server.close)
            # One after the other, because the first creates the database.
            for server in self.servers:
                await in_thread(server.start)
            collecting = asyncio.create_task(self._collect())
            stack.callback(collecting.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for proxy in self.proxies:
                self.collector.collect(proxy)


async def in_thread(function: Callable[..., object], *arguments: object) -> None:
    """As `asyncio.to_thread`, but waits for the thread even if cancelled: a server must not come up
    after it was closed."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(work)
    finally:
        await asyncio.gather(work, return_exceptions=True)


def memory_of(pids: Sequence[int]) -> dict[int, int]:
    """Resident memory in bytes of each process that still runs."""
    sizes = {}
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes[pid] = pages * os.sysconf("SC_PAGE_SIZE")
    return sizes
