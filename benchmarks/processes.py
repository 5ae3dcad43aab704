"""The processes of a run: pins them to a core, ends them with the run, and measures the resources
they use."""

from __future__ import annotations

import os
import resource
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

_PRIORITY: Final = -15  # as nice(2) counts
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """The run cannot continue, or its results are worthless. The text says why."""


@dataclass(frozen=True)
class Cores:
    """The core for the servers, and the one for the load generator."""

    server: int
    load: int


def choose_cores() -> Cores:
    """Choose two cores that this process may use.

    Raises:
        BenchmarkError: there are fewer.
    """
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise BenchmarkError("two cores are needed: one for the server, one for the load")
    return Cores(available[0], available[-1])


def free_port() -> int:
    """A free TCP port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str | Path], core: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core, with its output in ``log``; it ends with the block.

    If the run itself is killed, the kernel ends the process.
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
    """Wait until something accepts connections on a port of 127.0.0.1, or on a Unix socket.

    Raises:
        BenchmarkError: the process ended, or the timeout has passed; the text has its output.
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
    """A process and its descendants, the oldest first."""
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
    """The serving process: a child of ``pid`` with the same command line, or ``pid`` itself."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    for each in tree(pid)[1:]:
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{each}/cmdline").read_bytes() == command:
                return each
    return pid


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat after the name (which may contain anything): state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def busy_seconds(core: int) -> float:
    """How long a core has been busy since boot (proc(5), stat)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, line.split()[1:])
            return (user + nice + system + irq + softirq) / _TICKS
    raise BenchmarkError(f"there is no core {core}")


def cpu_seconds() -> float:
    """The processor time used so far by all processes of the run except this one."""
    total = 0
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):  # it has just ended
            total += sum(map(int, _stat(pid)[11:13]))
    return total / _TICKS


def own_seconds() -> float:
    """The processor time used so far by the run: this process, its descendants, and those that have
    ended."""
    return cpu_seconds() + sum(os.times()[:4])


class Disturbance:
    """Measures, from its creation on, how much of both cores other programs use."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._began = self._clocks()

    def share(self) -> float:
        """The share of both cores so far."""
        elapsed, others = (
            now - then for now, then in zip(self._clocks(), self._began, strict=True)
        )
        return max(0.0, others / elapsed / 2)

    def _clocks(self) -> tuple[float, float]:
        busy = busy_seconds(self._cores.server) + busy_seconds(self._cores.load)
        return time.monotonic(), busy - own_seconds()


def used_seconds(pids: Sequence[int]) -> float:
    """The processor time that these processes have used, to the nanosecond."""
    # The clock of another process, as clock_getcpuclockid(3) makes it.
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def thread_seconds(pid: int) -> dict[int, tuple[str, float]]:
    """Each thread's name and processor time, for a process and its descendants.

    The main thread has the process's name, the others their own.
    """
    found = {}
    for process in tree(pid):
        for entry in Path(f"/proc/{process}/task").iterdir():
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            own = "" if int(entry.name) == process else ", other threads"
            fields = rest.split()
            found[int(entry.name)] = (name + own, (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


@contextmanager
def ahead_of_others() -> Iterator[None]:
    """Let this process run as soon as it can: it uses little, and what keeps it waiting would count.

    Has no effect without the right to do so.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)


def allow_open_files(count: int) -> None:
    """Let this process, and those that it starts, have this many files open.

    Raises:
        BenchmarkError: the hard limit is lower.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchmarkError(f"{count:,} files must be open at a time, but the limit is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle(seconds: float = READY_SECONDS) -> None:
    """Wait until all processes of the run have been idle for a while.

    Raises:
        BenchmarkError: they do not become idle within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    before = None
    while (now := _activity()) is None or now != before:
        if time.monotonic() > deadline:
            raise BenchmarkError("the servers do not become idle")
        before = now
        time.sleep(0.1)


def _activity() -> list[tuple[int, list[str]]] | None:
    """Each process's processor time in ticks; None while one of them runs or waits for a disk."""
    used = []
    for pid in tree(os.getpid())[1:]:
        with suppress(OSError):
            fields = _stat(pid)
            if fields[0] not in "SZ":
                return None
            used.append((pid, fields[11:13]))
    return used


def resident(pid: int, *, peak: bool = False) -> int:
    """The memory of one process in bytes: now, or its peak since `reset_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} has ended")


def reset_peak(pid: int) -> None:
    """Restart the peak that `resident` reads (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
