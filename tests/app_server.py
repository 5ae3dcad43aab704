"""`tenantbase serve` for tests: a real process on a free port, with a method for each fault."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from tests import wire
from tests.servers import free_port, poll

READY_SECONDS = 120.0  # long enough for a busy machine


_PATIENT = {"TENANTBASE_ACCESS_LOG": "off", "TENANTBASE_CACHE_TIMEOUT": "2"}


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without tenantbase's options, plus these variables.

    On a busy machine, any request may be slow and memcached may be late, so by default neither is
    logged.
    """
    kept = {name: text for name, text in os.environ.items() if "TENANTBASE" not in name}
    return kept | _PATIENT | variables


class AppServer:
    """A server on 127.0.0.1. As a context manager it is started on entry and stopped on exit.

    The first start takes a free port; later starts take the same one.

    Args:
        database: its file, or the URL of a database on PostgreSQL.
        options: further options of `tenantbase serve`.
        environment: variables besides those of this process.
        own_group: run it in its own process group, as a shell at a terminal does.

    Attributes:
        program: the Python program to run.
        addresses: all that it listens on, as it reports them.
        descriptors: open files of this process that it inherits.
    """

    program: Sequence[str] = ("-m", "tenantbase")

    def __init__(
        self,
        database: Path | str,
        *options: str,
        environment: Mapping[str, str] | None = None,
        own_group: bool = False,
    ) -> None:
        self._database = database
        self.base_url = ""
        self.addresses: list[str] = []
        self.descriptors: Sequence[int] = ()
        self._options = options
        self._own_group = own_group
        self._environment = clean_environment(**(environment or {}))
        self._free_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = TemporaryFile()

    def __enter__(self) -> AppServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it if it still runs."""
        if self._process is not None:
            self.kill()
        self._stderr.close()

    @property
    def store(self) -> str:
        """What ``--database`` says."""
        return str(self._database)

    @property
    def database(self) -> Path:
        """The database's file."""
        assert isinstance(self._database, Path), "the database is not a file"
        return self._database

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server does not run"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """The worker processes: children of the first process, with the same command line."""
        shown = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=True,
        )
        rows = [line.split(maxsplit=3) for line in shown.stdout.splitlines()]
        return [
            int(row[0])
            for row in rows
            if int(row[1]) == self.pid and not row[2].startswith("Z") and " serve " in row[3]
        ]

    @property
    def port(self) -> int:
        """Where it listens, or is going to."""
        if self.base_url:
            return int(self.base_url.rpartition(":")[2])
        self._free_port = self._free_port or free_port()
        return self._free_port

    @property
    def stderr(self) -> str:
        """Everything it has written to standard error so far, across restarts."""
        # Don't move the file's position: the process writes there.
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode()

    def start(self) -> None:
        """Start it and wait until it reports that it is listening."""
        self.spawn()
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until it reports that it is listening, after ``spawn``."""
        try:
            lines = self._output(lines=self._options.count("--listen") or 1)
        except AssertionError:
            self.close()
            raise
        if not re.fullmatch(rb"(listening on (https?://\S+|unix:[^\n]+)\n)+", lines):
            # No process may outlive this test: a later one would be blamed for it.
            said = self.stderr
            self.close()
            raise AssertionError(f"the server said {lines!r} and {said!r}")
        self.addresses = re.findall(r"listening on (.+)\n", lines.decode())
        self.base_url = self.addresses[0]

    def spawn(self) -> None:
        """Start it without waiting."""
        assert self._process is None, "the server runs already"
        command = [sys.executable, "-W", "error", *self.program, "serve"]
        command += ["--database", self.store, *self._options]
        if "--listen" not in self._options:
            command += ["--port", str(self.port)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=self._environment,
            process_group=0 if self._own_group else None,
            pass_fds=self.descriptors,
        )

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = READY_SECONDS) -> int:
        """Wait until it has ended. Returns: its exit status, below 0 for a signal."""
        process = self.process
        assert process.stdout is not None
        with process.stdout:
            status = process.wait(seconds)
            rest = self._output()  # read to the end, which comes when the last worker exits
        self._process = None
        assert rest == b"", f"the server said {rest!r}"
        return status

    def stop(self) -> int:
        """SIGTERM, and wait until it has drained. Returns: its exit status."""
        self.signal()
        return self.wait()

    def kill(self) -> None:
        """Kill it and its workers with SIGKILL, as a machine that is out of memory does."""
        workers = self.workers
        self.signal(signal.SIGKILL)  # kill the supervisor first, or it would replace the workers
        self._signal_all(workers, signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """Stop all its processes: the kernel still accepts connections, but they get no answer."""
        self.signal(signal.SIGSTOP)
        # The signal takes a moment: until a process has stopped, it may still answer, or start others.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        workers = self.workers
        self._signal_all(workers, signal.SIGSTOP)
        poll(lambda: all(map(_has_stopped, workers)), "the workers are stopped")

    def resume(self) -> None:
        self._signal_all(self.workers, signal.SIGCONT)
        self.signal(signal.SIGCONT)

    @staticmethod
    def _signal_all(pids: Sequence[int], number: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> wire.Answer:
        """Send a request on a connection of its own."""
        return wire.ask(self.port, method, target, body, headers)

    def _output(self, lines: int = 0) -> bytes:
        """This many lines of its standard output; 0: everything up to its end."""
        stream = self.process.stdout
        assert stream is not None
        deadline = time.monotonic() + READY_SECONDS
        output = b""
        while not lines or output.count(b"\n") < lines:
            left = max(deadline - time.monotonic(), 0)
            assert select.select([stream], [], [], left)[0], f"no end after {output!r}"
            piece = os.read(stream.fileno(), 4096)
            if not piece:
                break
            output += piece
        return output


def _has_stopped(pid: int) -> bool:
    """Whether a process is stopped, or has ended."""
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()[:1] in ("T", "Z", "")
