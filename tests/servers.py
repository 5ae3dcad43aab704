"""Real servers for tests: faults are verbs, readiness is polled with a deadline.

MemcachedProcess    memcached on a Unix socket or a free port, killed, paused, restarted
FaultProxy          between a client and its server: hangs, stalls, delays, cuts, resets, refuses
contents            what a memcached has, as a dictionary
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Final

from tenantbase.interfaces.cache import ABSENT, Fetched, Memcache
from tenantbase.interfaces.memcached.address import MemcacheAddress

# Below the ports that Linux and macOS give to clients' connections.
_PORT_BLOCKS: Final = range(20_000, 30_000, 100)
READY_SECONDS = 30.0  # long enough for a busy machine


def free_port() -> int:
    """A free TCP port of 127.0.0.1, which no other process of any test run is given."""
    while True:
        port = next(_own_ports())
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


@cache
def _own_ports() -> Iterator[int]:
    """The ports of a block, again and again. As long as this process runs, it is its own.

    If the system chose the port, it could give it to another process while a test's server is
    down, and the test would talk to that one.
    """
    first = os.getpid() % len(_PORT_BLOCKS)
    for start in (*_PORT_BLOCKS[first:], *_PORT_BLOCKS[:first]):
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", start))
        except OSError:
            lock.close()
        else:
            atexit.register(lock.close)
            return cycle(range(start + 1, start + _PORT_BLOCKS.step))
    raise AssertionError("all ports that are kept for tests are in use")


def connect(address: str) -> socket.socket:
    """A blocking connection that bypasses the code under test. Raises OSError, also on a
    timeout."""
    parsed = MemcacheAddress.parse(address)
    if not parsed.path:
        return socket.create_connection((parsed.host, parsed.port), READY_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(READY_SECONDS)
    try:
        connection.connect(parsed.path)
    except OSError:
        connection.close()
        raise
    return connection


def poll(condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until a condition holds; raises AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


async def poll_async(
    condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS
) -> None:
    """As `poll`, without blocking the event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


async def contents(memcache: Memcache, names: Sequence[bytes]) -> dict[bytes, bytes]:
    """The bytes of all items that memcached has under these names, none of which is known.

    Raises:
        AssertionError: an item is neither there nor absent. A test of such answers looks at them itself.
        CacheUnavailable: as ``get_many``.
    """
    found: dict[bytes, bytes] = {}
    answers = await memcache.get_many(names, [None] * len(names))
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Fetched):
            found[name] = answer.data
        else:
            assert answer is ABSENT, f"{name!r} is {answer}"
    return found


def let_pass(seconds: float) -> None:
    """Set the clock of the running event loop forward, so that its timers are due earlier.

    With limits of many minutes, a test's result does not depend on the load of the machine. Does
    not work with uvloop, whose clock cannot be replaced.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]


@contextmanager
def stopped_writer(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Stops itself while it holds the write lock; when continued, it ends normally."""
    code = """if True:
        import os, pathlib, signal, sys
        from tenantbase.coherence.tag_seqlock import WriteLock
        from tenantbase.coherence.tag_file import TagFile
        tags = TagFile.open(pathlib.Path(sys.argv[1] + "-tags"))
        path = pathlib.Path(sys.argv[1] + "-lock")
        with WriteLock(path).held():
            os.kill(os.getpid(), signal.SIGSTOP)
        tags.close(path)
    """
    with subprocess.Popen([sys.executable, "-c", code, str(database)], text=True) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield process
        finally:
            process.kill()


class MemcachedProcess:
    """A memcached at a fixed address, which can be started and stopped.

    As a context manager it is started on entry, and always stopped on exit.

    Args:
        address: where it listens, in the form of `--memcached`; None: a socket in its own
            directory.
        options: further options of memcached.
    """

    def __init__(self, address: str | None = None, *options: str) -> None:
        self._directory = None if address else tempfile.mkdtemp(prefix="tenantbase-test-")
        self.address = address or f"unix:{self._directory}/memcached"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MemcachedProcess:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory)

    @property
    def pid(self) -> int:
        assert self._process is not None, "memcached does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None, "memcached is already running"
        program = shutil.which("memcached")
        assert program, "these tests need the program memcached"
        address = MemcacheAddress.parse(self.address)
        if address.path:
            where = ["-s", address.path, "-a", "0600"]
        else:
            where = ["-l", address.host, "-p", str(address.port)]
        user = ["-u", pwd.getpwuid(0).pw_name] if os.geteuid() == 0 else []
        command = [program, *where, "-U", "0", "-t", "2", "-m", "64", *user, *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        poll(self._answers, f"{' '.join(command)} answers")

    def kill(self) -> None:
        """Kill it with SIGKILL, which closes its connections without a reply."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it: the kernel still accepts connections and commands, but there is no reply."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal takes a moment: until all threads have stopped, some may still answer.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it, empty, at the same address."""
        self.kill()
        self.start()

    def flush(self) -> None:
        """Remove all its items."""
        assert self.command(b"flush_all\r\n") == b"OK\r\n"

    def command(self, command: bytes) -> bytes:
        """Send a command, bypassing the client under test. Returns: the answer, one line."""
        with connect(self.address) as connection, connection.makefile("rwb") as stream:
            stream.write(command)
            stream.flush()
            return stream.readline()

    def stat(self, name: str) -> int:
        """One of its own figures, such as `curr_items`."""
        wanted = f"STAT {name} ".encode()
        with connect(self.address) as connection, connection.makefile("rwb") as stream:
            stream.write(b"stats\r\n")
            stream.flush()
            while not (line := stream.readline()).startswith(wanted):
                assert line.startswith(b"STAT "), f"memcached has no figure {name}"
        return int(line.removeprefix(wanted))

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "memcached has ended"
        try:
            return self.command(b"version\r\n").startswith(b"VERSION")
        except OSError:
            return False

    def _end(self, by: signal.Signals) -> None:
        assert self._process is not None, "memcached does not run"
        self._process.send_signal(by)
        # A stopped process handles SIGTERM only when it is continued.
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(READY_SECONDS)
        self._process = None


class FaultProxy:
    """A proxy between a client and its server that fails in the ways of networks and bad servers.

    An async context manager in the event loop of the test. A verb applies to existing and new
    connections, until the next verb.

    Args:
        upstream: the server's address, in the form of `--memcached`.
        address: where clients connect; None: a free port.
    """

    def __init__(self, upstream: str, address: str | None = None) -> None:
        self.address = address or f"127.0.0.1:{free_port()}"
        self.connections = 0
        """How many connections were accepted so far."""
        self.received = bytearray()
        """Everything that clients have sent so far, forwarded or not."""
        self._upstream = MemcacheAddress.parse(upstream)
        self._address = MemcacheAddress.parse(self.address)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._hangs = False
        self._resets = False
        self._delay = 0.0
        self._piece_bytes = 0
        self._reply_bytes: int | None = None
        self._commands, self._answers = asyncio.Event(), asyncio.Event()  # set while they flow

    async def __aenter__(self) -> FaultProxy:
        await self.pass_through()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.refuse()

    @property
    def open_connections(self) -> int:
        return len(self._links)

    async def pass_through(self) -> None:
        """Forward everything unchanged, as initially."""
        await self._behave()

    async def hang(self) -> None:
        """Accept connections, read everything, and never answer."""
        await self._behave(hangs=True)

    async def delay(self, seconds: float) -> None:
        """Delay every piece of an answer by ``seconds``."""
        await self._behave(delay=seconds)

    async def stall(self, *, commands: bool = True, answers: bool = True) -> None:
        """Hold back what is sent in one or both directions, until the next verb.

        So does TCP while the network is down. Unlike after ``hang``, nothing is lost.
        """
        await self._behave()
        for stalls, flow in ((commands, self._commands), (answers, self._answers)):
            if stalls:
                flow.clear()

    async def drip(self, seconds: float) -> None:
        """Forward answers byte by byte, each after ``seconds``."""
        await self._behave(delay=seconds, piece_bytes=1)

    async def cut_after(self, reply_bytes: int) -> None:
        """Close a connection after this many more bytes of answers; 0: before the first."""
        await self._behave(reply_bytes=reply_bytes)

    def cut_existing_after(self, reply_bytes: int) -> None:
        """As `cut_after`, only for the connections that exist now."""
        for link in self._links.values():
            link.reply_bytes = reply_bytes

    async def reset(self) -> None:
        """Reset every connection (TCP: RST), new ones as soon as they are accepted."""
        await self._behave(resets=True)
        await self._end_links()

    async def refuse(self) -> None:
        """Close every connection and stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._address.path:
                # Since Python 3.13, asyncio removes it.
                Path(self._address.path).unlink(missing_ok=True)
        await self._end_links()

    async def say(self, data: bytes) -> None:
        """Send unrequested bytes to every client."""
        for link in self._links.values():
            link.writer.write(data)
            await link.writer.drain()

    async def _behave(
        self,
        *,
        hangs: bool = False,
        resets: bool = False,
        delay: float = 0.0,
        piece_bytes: int = 65536,
        reply_bytes: int | None = None,
    ) -> None:
        self._hangs, self._resets, self._reply_bytes = hangs, resets, reply_bytes
        self._delay, self._piece_bytes = delay, piece_bytes
        self._commands.set()
        self._answers.set()
        for link in self._links.values():
            link.reply_bytes = reply_bytes
        if self._server is None and self._address.path:
            self._server = await asyncio.start_unix_server(self._accept, self._address.path)
        elif self._server is None:
            self._server = await self._listen(self._address.host, self._address.port)

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._accept, host, port)

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.transport.set_write_buffer_limits(0)  # after drain(), everything is sent
        link = _Link(reader, writer, self._reply_bytes)
        task = asyncio.get_running_loop().create_task(self._serve(link))
        self._links[task] = link
        task.add_done_callback(self._links.pop)

    async def _serve(self, link: _Link) -> None:
        try:
            if not self._resets:
                await self._join(link)
        except OSError:
            pass  # the server refuses: the client's connection is closed
        finally:
            if self._resets and not self._address.path:
                # Closing with a linger time of zero sends RST instead of FIN.
                connection = link.writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.writer.transport.abort()

    async def _join(self, link: _Link) -> None:
        if self._upstream.path:
            reader, writer = await asyncio.open_unix_connection(self._upstream.path)
        else:
            reader, writer = await self._connect(self._upstream.host, self._upstream.port)
        pumps = [
            asyncio.create_task(self._pass_commands(link, writer)),
            asyncio.create_task(self._pass_answers(reader, link)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pass_commands(self, link: _Link, server: asyncio.StreamWriter) -> None:
        while data := await link.reader.read(65536):
            self.received += data
            await self._commands.wait()
            if not self._hangs:
                server.write(data)
                await server.drain()

    async def _pass_answers(self, server: asyncio.StreamReader, link: _Link) -> None:
        while data := await server.read(65536):
            while data and link.reply_bytes != 0:
                await asyncio.sleep(self._delay)
                await self._answers.wait()
                size = self._piece_bytes if link.reply_bytes is None else link.reply_bytes
                piece, data = data[:size], data[size:]
                if link.reply_bytes is not None:
                    link.reply_bytes -= len(piece)
                if not self._hangs:
                    link.writer.write(piece)
                    await link.writer.drain()
            if link.reply_bytes == 0:
                return

    async def _end_links(self) -> None:
        links = dict(self._links)
        for task in links:
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        for link in links.values():
            link.writer.transport.abort()  # for a connection whose task has not started


@dataclass
class _Link:
    """A client's connection, and how many bytes of answers it may still receive."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    reply_bytes: int | None
