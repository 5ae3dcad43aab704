"""The services compared: how each is set up and started, and what it is asked for.

Whatever belongs to a service, its memcached or Redis too, runs on the one core for servers: what is
compared is what a core yields.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Final

from benchmarks import dialect
from benchmarks.client import drive
from benchmarks.peers import table
from benchmarks.processes import free_port, running, wait_for
from benchmarks.work import LIST_ENTRIES, Data, Needs, absent_name

MEMCACHED_MEGABYTES: Final = 256

Process = Popen[bytes]


@dataclass(frozen=True)
class Site:
    """Where a service is to run.

    Attributes:
        directory: its own, empty.
        core: the core it is to stay on.
        port: where it is to listen.
        data: what it is to hold.
    """

    directory: Path
    core: int
    port: int
    data: Data

    def run(self, name: str, command: Sequence[str | Path]) -> AbstractContextManager[Process]:
        """A process of the service."""
        return running(command, self.core, self.log(name))

    def log(self, name: str) -> Path:
        """Where the output of one of its processes goes."""
        return self.directory / f"{name}.log"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Started:
    """A service that runs.

    Attributes:
        process: the one that serves.
        renew: to be called after a load whose clients left before they had all their answers.
    """

    process: Process
    renew: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Setup:
    """A service as some work needs it.

    Attributes:
        name: of its own among all setups of a run.
        dialect: how it is asked, given its port.
        start: runs it; it serves when the block is entered.
        load: whether the data are still to be stored through its routes.
        warm: whether there is a cache to be filled by reading.
    """

    name: str
    dialect: Callable[[int], dialect.Dialect]
    start: Callable[[Site], AbstractContextManager[Started]]
    load: bool
    warm: bool


@dataclass(frozen=True)
class Server:
    """A service that runs and holds its data."""

    started: Started
    port: int
    dialect: dialect.Dialect


def constant(needs: Needs) -> Setup:
    """The bare framework."""
    return Setup("constant", dialect.Constant, _constant, load=False, warm=False)


def tenantbase(needs: Needs) -> Setup:
    """One worker, with its private memcached or without any."""
    if needs is Needs.NO_CACHE:
        return Setup(
            "tenantbase without cache",
            lambda port: dialect.Tenantbase(port, "BYPASS"),
            lambda site: start_tenantbase(site, ["--memcached", "off"]),
            load=True,
            warm=False,
        )
    return Setup(
        "tenantbase",
        lambda port: dialect.Tenantbase(port, "HIT"),
        lambda site: start_tenantbase(site, ["--memcached-memory", str(MEMCACHED_MEGABYTES)]),
        load=True,
        warm=True,
    )


def naive(needs: Needs) -> Setup:
    """An afternoon's work."""
    return _written("naive", "benchmarks.peers.naive", needs)


def fastapi(needs: Needs) -> Setup:
    """The same with the usual tools."""
    return _written("fastapi", "benchmarks.peers.fastapi_service", needs)


def webdis(needs: Needs) -> Setup | None:
    """C: Webdis in front of Redis, one thread each. It cannot be without Redis."""
    if needs is Needs.NO_CACHE:
        return None
    durable = needs is Needs.DURABLE
    persistence = "appendonly yes\nappendfsync always\n" if durable else ""
    return Setup(
        "webdis with fsync" if durable else "webdis",
        dialect.Webdis,
        lambda site: _webdis(site, f'save ""\n{persistence}'),
        load=True,
        warm=False,
    )


PEERS: Final[dict[str, Callable[[Needs], Setup | None]]] = {
    "constant": constant,
    "tenantbase": tenantbase,
    "naive": naive,
    "fastapi": fastapi,
    "webdis": webdis,
}


@contextmanager
def serving(setup: Setup, site: Site) -> Iterator[Server]:
    """A service with its data stored and in its cache, absent keys included."""
    with setup.start(site) as started:
        server = Server(started, site.port, setup.dialect(site.port))
        entries = site.data.entries()
        if setup.load:
            drive(site.port, [server.dialect.set(*entry).request for entry in entries.items()])
        if setup.warm:
            found = [server.dialect.get(*entry).request for entry in entries.items()]
            drive(site.port, found)
            absent = [server.dialect.get(absent_name(n), None) for n in range(site.data.keys)]
            drive(site.port, [each.request for each in absent], absent[0].status)
        yield server


@contextmanager
def start_tenantbase(
    site: Site,
    options: Sequence[str],
    module: Sequence[str | Path] = ("tenantbase",),
    interpreter: Sequence[str | Path] = (sys.executable,),
) -> Iterator[Started]:
    """A tenantbase on ``tenantbase.db`` in its directory, which may be there already.

    Args:
        module: what Python is to run, with arguments of its own that come first.
        interpreter: the Python, with options of its own.
    """
    serve: list[str | Path] = [
        "serve",
        "--port",
        str(site.port),
        "--database",
        site.directory / "tenantbase.db",
    ]
    command = [*interpreter, "-m", *module, *serve, *options]
    with site.run("tenantbase", command) as process:
        wait_for(process, site.log("tenantbase"), port=site.port)
        yield Started(process)


def tenantbase_command(site: Site, name: str, *arguments: str | Path) -> list[str | Path]:
    """One of tenantbase's commands, for the database in this directory."""
    database = site.directory / "tenantbase.db"
    return [sys.executable, "-m", "tenantbase", name, "--database", database, *arguments]


@contextmanager
def _constant(site: Site) -> Iterator[Started]:
    command = [sys.executable, "-m", "benchmarks.peers.constant", "--port", str(site.port)]
    size = ["--value-bytes", str(site.data.value_bytes), "--entries", str(LIST_ENTRIES)]
    with site.run("constant", [*command, *size]) as process:
        wait_for(process, site.log("constant"), port=site.port)
        yield Started(process)


def _written(name: str, module: str, needs: Needs) -> Setup:
    @contextmanager
    def start(site: Site) -> Iterator[Started]:
        database = site.directory / f"{name}.db"
        table.create(database, site.data.entries())
        command = [sys.executable, "-m", module, "--port", str(site.port)]
        command += ["--database", str(database)]
        if needs is Needs.NO_CACHE:
            with site.run(name, command) as process:
                wait_for(process, site.log(name), port=site.port)
                yield Started(process)
        else:
            with (
                _memcached(site) as port,
                site.run(name, [*command, "--memcached", port]) as process,
            ):
                wait_for(process, site.log(name), port=site.port)
                yield Started(process)

    cached = needs is not Needs.NO_CACHE
    full_name = name if cached else f"{name} without cache"
    return Setup(full_name, dialect.Routes, start, load=False, warm=cached)


@contextmanager
def _memcached(site: Site) -> Iterator[str]:
    port = free_port()
    # One thread: there is one core. aiomcache cannot speak to Unix sockets.
    command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1"]
    with site.run("memcached", [*command, "-m", str(MEMCACHED_MEGABYTES)]) as process:
        wait_for(process, site.log("memcached"), port=port)
        yield str(port)


@contextmanager
def _webdis(site: Site, persistence: str) -> Iterator[Started]:
    socket = site.directory / "redis.sock"
    redis = site.directory / "redis.conf"
    redis.write_text(f"port 0\nunixsocket {socket}\ndir {site.directory}\n{persistence}")
    settings = {
        "redis_host": str(socket),
        "http_host": "127.0.0.1",
        "http_port": site.port,
        "threads": 1,
        "daemonize": False,
        "verbosity": 0,
        "logfile": str(site.log("webdis-own")),
    }
    config = site.directory / "webdis.json"
    config.write_text(json.dumps(settings))
    with site.run("redis", ["redis-server", redis]) as process, ExitStack() as front:
        wait_for(process, site.log("redis"), path=socket)

        def start() -> Process:
            process = front.enter_context(site.run("webdis", ["webdis", config]))
            wait_for(process, site.log("webdis"), port=site.port)
            return process

        def renew() -> None:
            # Webdis gives the answers that a client did not wait for to whoever gets its
            # descriptor next. It holds no data, so a new one takes its place.
            front.close()
            start()

        yield Started(start(), renew)
