"""The servers of a cluster on machines of their own."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from tests.cluster.clock import Clock
from tests.cluster.disk import Disk
from tests.cluster.network import SUBNET, Machine
from tests.cluster.promoter import Server
from tests.postgres import SUPERUSER, PostgresProcess
from tests.servers import READY_SECONDS, FaultProxy, MemcachedProcess, free_port

_COPIES: Final = 5


class RemoteServer(Server):
    """PostgreSQL on its own machine, with its own clock and its own disk.

    Args:
        machine: named as the server.
        operator: the machine from which it is administered.
    """

    def __init__(self, machine: Machine, operator: Machine) -> None:
        super().__init__(machine.name)
        self.machine = machine
        self.address = machine.address
        self.clock = Clock()
        self.environment = self.clock.environment
        self.disk = Disk(self.directory)
        self._operator = operator

    def __exit__(self, *exc_info: object) -> None:
        self.end()
        self.disk.close()
        self.clock.close()
        super().__exit__(*exc_info)

    def create(self) -> None:
        super().create()
        with open(self.data / "pg_hba.conf", "a") as file:
            file.write(f"host all,replication all {SUBNET} trust\n")

    def start(self) -> None:
        self.machine.run(super().start)

    def copy(self, primary: PostgresProcess, name: str, port: int | None = None) -> None:
        copy = partial(super().copy, primary, name, port)
        for attempt in count(1):
            try:
                return self.machine.run(copy)
            except AssertionError:
                # The primary breaks the connection off when its clock is set forward.
                if attempt == _COPIES:
                    raise

    def psql(self, database: str = "tenantbase", user: str = SUPERUSER) -> list[str | Path]:
        command = super().psql(database, user)
        command[command.index("-h") + 1] = self.address
        return command

    def sql(
        self,
        statement: str,
        database: str = "tenantbase",
        user: str = SUPERUSER,
        seconds: float = READY_SECONDS,
    ) -> str:
        return self._operator.run(partial(super().sql, statement, database, user, seconds))


class RemoteMemcached(MemcachedProcess):
    """memcached on its own machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(f"{machine.address}:{free_port()}")
        self.machine = machine

    def start(self) -> None:
        self.machine.run(super().start)


class RemoteProxy(FaultProxy):
    """A proxy on its clients' machine. It reaches the server from there."""

    def __init__(self, machine: Machine, upstream: str) -> None:
        super().__init__(upstream)
        self._machine = machine

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        listener = self._machine.run(partial(socket.create_server, (host, port)))
        return await asyncio.start_server(self._accept, sock=listener)

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = self._machine.run(socket.socket)
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise
