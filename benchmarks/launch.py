"""The services compared: how each is set up and started.

All processes of a service, its memcached or Redis included, run on the one core for servers,
because the comparison is of throughput per core.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from socket import create_connection
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
    """Where a service runs, and on which data.

    Attributes:
        directory: its own, empty.
        core: the core it is pinned to.
        port: the port it listens on.
        data: the entries it holds.
    """

    directory: Path
    core: int
    port: int
    data: Data

    def run(self, name: str, command: Sequence[str | Path]) -> AbstractContextManager[Process]:
        """A process of the service."""
        return running(command, self.core, self.log(name))

    def log(self, name: str) -> Path:
        """The file for the output of one of its processes."""
        return self.directory / f"{name}.log"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Started:
    """A running service.

    Attributes:
        process: the serving process.
        renew: call it after a load whose clients left without reading all answers.
    """

    process: Process
    renew: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Setup:
    """A service, configured for a kind of work.

    Attributes:
        name: unique among all setups of a run.
        dialect: makes its requests, given its port.
        start: a context manager that runs it; it serves inside the block.
        load: whether the data must be stored through its routes.
        warm: whether reads must fill its cache first.
    """

    name: str
    dialect: Callable[[int], dialect.Dialect]
    start: Callable[[Site], AbstractContextManager[Started]]
    load: bool
    warm: bool


@dataclass(frozen=True)
class Server:
    """A running service that holds its data."""

    started: Started
    port: int
    dialect: dialect.Dialect


def constant(needs: Needs) -> Setup:
    """The bare framework."""
    return Setup("constant", dialect.Constant, _constant, load=False, warm=False)


def tenantbase(needs: Needs) -> Setup:
    """tenantbase with one worker, with or without its private memcached."""
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
    """The naive service, as written in an afternoon."""
    return _written("naive", "benchmarks.peers.naive", needs)


def fastapi(needs: Needs) -> Setup:
    """The naive service with the usual tools."""
    return _written("fastapi", "benchmarks.peers.fastapi_service", needs)


def webdis(needs: Needs) -> Setup | None:
    """Webdis, written in C, in front of Redis, which it needs; one thread each."""
    if needs is Needs.NO_CACHE:
        return None
    durable = needs is Needs.DURABLE
    return Setup(
        "webdis with fsync" if durable else "webdis",
        dialect.Webdis,
        lambda site: _webdis(site, durable),
        load=True,
        warm=False,
    )


def nginx(needs: Needs) -> Setup | None:
    """nginx with its memcached module, which only reads."""
    if needs is not Needs.CACHE:
        return None
    return Setup("nginx", dialect.Nginx, _nginx, load=False, warm=False)


def etcd(needs: Needs) -> Setup | None:
    """etcd, a single member, through its JSON gateway. Every write is durable."""
    if needs is Needs.NO_CACHE:
        return None
    return Setup("etcd", dialect.Etcd, _etcd, load=True, warm=False)


def redis_fastapi(needs: Needs) -> Setup | None:
    """Redis behind FastAPI."""
    if needs is Needs.NO_CACHE:
        return None
    durable = needs is Needs.DURABLE
    return Setup(
        "redis-fastapi with fsync" if durable else "redis-fastapi",
        dialect.Redis,
        lambda site: _redis_fastapi(site, durable),
        load=True,
        warm=False,
    )


PEERS: Final[dict[str, Callable[[Needs], Setup | None]]] = {
    "constant": constant,
    "tenantbase": tenantbase,
    "naive": naive,
    "fastapi": fastapi,
    "webdis": webdis,
    "nginx": nginx,
    "etcd": etcd,
    "redis-fastapi": redis_fastapi,
}


@contextmanager
def serving(setup: Setup, site: Site) -> Iterator[Server]:
    """Run a service with its data stored and cached, absent keys included."""
    with setup.start(site) as started:
        server = Server(started, site.port, setup.dialect(site.port))
        entries = site.data.entries()
        if setup.load:
            stored = [server.dialect.set(*entry) for entry in entries.items()]
            drive(site.port, [each.request for each in stored if each is not None])
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
    database: str | None = None,
) -> Iterator[Started]:
    """Run tenantbase.

    Args:
        module: the module that Python runs, and arguments that come before tenantbase's.
        interpreter: the Python, and its own options.
        database: a URL; None: ``tenantbase.db`` in its directory, which may exist already.
    """
    serve: list[str | Path] = [
        "serve",
        "--port",
        str(site.port),
        "--database",
        database or site.directory / "tenantbase.db",
    ]
    command = [*interpreter, "-m", *module, *serve, *options]
    with site.run("tenantbase", command) as process:
        wait_for(process, site.log("tenantbase"), port=site.port)
        yield Started(process)


def tenantbase_command(site: Site, name: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of a tenantbase command on the database in this directory."""
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
                memcached(site) as port,
                site.run(name, [*command, "--memcached", port]) as process,
            ):
                wait_for(process, site.log(name), port=site.port)
                yield Started(process)

    cached = needs is not Needs.NO_CACHE
    full_name = name if cached else f"{name} without cache"
    return Setup(full_name, dialect.Routes, start, load=False, warm=cached)


@contextmanager
def memcached(site: Site) -> Iterator[str]:
    """Run a memcached. Yields: its port on 127.0.0.1."""
    port = free_port()
    # One thread, because there is one core. TCP, because aiomcache does not support Unix sockets.
    command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1"]
    with site.run("memcached", [*command, "-m", str(MEMCACHED_MEGABYTES)]) as process:
        wait_for(process, site.log("memcached"), port=port)
        yield str(port)


@contextmanager
def _redis(site: Site, durable: bool) -> Iterator[Path]:
    socket = site.directory / "redis.sock"
    config = site.directory / "redis.conf"
    persistence = "appendonly yes\nappendfsync always\n" if durable else ""
    config.write_text(f'port 0\nunixsocket {socket}\ndir {site.directory}\nsave ""\n{persistence}')
    with site.run("redis", ["redis-server", config]) as process:
        wait_for(process, site.log("redis"), path=socket)
        yield socket


@contextmanager
def _webdis(site: Site, durable: bool) -> Iterator[Started]:
    config = site.directory / "webdis.json"
    with _redis(site, durable) as socket, ExitStack() as front:
        settings = {
            "redis_host": str(socket),
            "http_host": "127.0.0.1",
            "http_port": site.port,
            "threads": 1,
            "daemonize": False,
            "verbosity": 0,
            "logfile": str(site.log("webdis-own")),
        }
        config.write_text(json.dumps(settings))

        def start() -> Process:
            process = front.enter_context(site.run("webdis", ["webdis", config]))
            wait_for(process, site.log("webdis"), port=site.port)
            return process

        def renew() -> None:
            # Webdis sends the answers that a client did not wait for to the next client that gets
            # the same descriptor. It holds no data, so start a new one.
            front.close()
            start()

        yield Started(start(), renew)


@contextmanager
def _redis_fastapi(site: Site, durable: bool) -> Iterator[Started]:
    with _redis(site, durable) as socket:
        command = [sys.executable, "-m", "benchmarks.peers.redis_service"]
        command += ["--port", str(site.port), "--redis", str(socket)]
        with site.run("redis-fastapi", command) as process:
            wait_for(process, site.log("redis-fastapi"), port=site.port)
            yield Started(process)


# One worker process, without a limit of requests on a connection, as for the other services.
_NGINX: Final = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream memcached {{
        server 127.0.0.1:{memcached};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000000;
        location / {{
            set $memcached_key $uri;
            memcached_pass memcached;
        }}
    }}
}}
"""


@contextmanager
def _nginx(site: Site) -> Iterator[Started]:
    config = site.directory / "nginx.conf"
    with memcached(site) as cache:
        _fill(int(cache), site.data)
        config.write_text(_NGINX.format(directory=site.directory, memcached=cache, port=site.port))
        program = which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
        with site.run("nginx", [program, "-c", config, "-p", site.directory]) as process:
            wait_for(process, site.log("nginx"), port=site.port)
            yield Started(process)


def _fill(memcached: int, data: Data) -> None:
    """Store the entries in memcached, under the keys that nginx makes from paths."""
    with create_connection(("127.0.0.1", memcached)) as connection:
        for key, value in data.entries().items():
            connection.sendall(f"set /{key} 0 0 {len(value)} noreply\r\n{value}\r\n".encode())
        connection.sendall(b"version\r\n")
        connection.recv(256)  # answered once everything before it is stored


@contextmanager
def _etcd(site: Site) -> Iterator[Started]:
    clients, peers = f"http://127.0.0.1:{site.port}", f"http://127.0.0.1:{free_port()}"
    command: list[str | Path] = ["etcd", "--data-dir", site.directory / "etcd", "--logger", "zap"]
    command += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
    command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    command += ["--initial-cluster", f"default={peers}", "--log-level", "error"]
    with site.run("etcd", command) as process:
        wait_for(process, site.log("etcd"), port=site.port)
        yield Started(process)
