"""The processes of a run: pinned to a core, gone when the run is, and what they use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0

_TICKS: Final = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """The run cannot go on, or what it measured is worth nothing. The text says why."""


@dataclass(frozen=True)
class Cores:
    """The core for everything that serves, and the one for the load."""

    server: int
    load: int


def choose_cores() -> Cores:
    """Two cores that this process may use.

    Raises:
        BenchmarkError: there are not two.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchmarkError("two cores are needed: one for the server, one for the load")
    return Cores(available[0], available[-1])


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str | Path], core: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, with its output in ``log``; ended with the block.

    Should the run itself be killed, the kernel ends the process.
    """
    pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", str(core), *command]
    with log.open("ab") as output:
        process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    process: subprocess.Popen[bytes], log: Path, *, port: int = 0, path: Path | None = None
) -> None:
    """Return once something accepts connections on a port of 127.0.0.1, or on a Unix socket.

    Raises:
        BenchmarkError: the process ended, or time is up; with what it wrote.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not _accepts(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"{log.stem} does not serve:\n{said}")
        time.sleep(0.002)


def _accepts(port: int, path: Path | None) -> bool:
    family = socket.AF_UNIX if path else socket.AF_INET
    with socket.socket(family) as connection:
        return connection.connect_ex(str(path) if path else ("127.0.0.1", port)) == 0


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, the oldest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has just ended
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def worker_of(pid: int) -> int:
    """The process that serves: one forked from ``pid``, with its command line, or itself."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    for each in tree(pid)[1:]:
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{each}/cmdline").read_bytes() == command:
                return each
    return pid


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat after the name, which may hold anything: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def busy_seconds(core: int) -> float:
    """How long a core has not been idle since the machine began (proc(5), stat)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, line.split()[1:])
            return (user + nice + system + irq + softirq) / _TICKS
    raise BenchmarkError(f"there is no core {core}")


def cpu_seconds() -> float:
    """What all processes of the run, this one aside, have used since they began."""
    total = 0
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):  # it has just ended
            total += sum(map(int, _stat(pid)[11:13]))
    return total / _TICKS


def thread_seconds(pid: int) -> dict[int, tuple[str, float]]:
    """The name of each thread of a process and of those that descend from it, and what it has used.

    The first thread of a process bears the process's name, its others theirs.
    """
    found = {}
    for process in tree(pid):
        for entry in Path(f"/proc/{process}/task").iterdir():
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            own = "" if int(entry.name) == process else ", other threads"
            fields = rest.split()
            found[int(entry.name)] = (name + own, (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


def settle() -> None:
    """Return once all processes of the run have had nothing to do for a while.

    Raises:
        BenchmarkError: they do not come to rest.
    """
    deadline = time.monotonic() + READY_SECONDS
    before = None
    while (now := _activity()) is None or now != before:
        if time.monotonic() > deadline:
            raise BenchmarkError("the servers do not come to rest")
        before = now
        time.sleep(0.1)


def _activity() -> list[tuple[int, list[str]]] | None:
    """What each process has used, in ticks; None while one of them works or waits for a disk."""
    used = []
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):
            fields = _stat(pid)
            if fields[0] not in "SZ":
                return None
            used.append((pid, fields[11:13]))
    return used


def resident(pid: int, *, peak: bool = False) -> int:
    """The memory of one process in bytes: now, or at most since `reset_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} is gone")


def reset_peak(pid: int) -> None:
    """Let `resident` find the peak from now on (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
