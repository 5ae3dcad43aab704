"""Real PostgreSQL servers for tests: faults are verbs, readiness is polled with a deadline.

PostgresProcess     a server on a free port: started, stopped, killed, paused, promoted; with standbys

Each has the database ``tenantbase``, owned by the role of the same name, which has no other rights.
Connections need no password.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Self

from tests.servers import READY_SECONDS, free_port, poll

SUPERUSER: Final = "postgres"
_DEBIAN: Final = Path("/usr/lib/postgresql")
_MEMORY: Final = Path("/dev/shm")
_NEEDED_BYTES: Final = 1 << 30  # a server takes 30 to 100 MiB
_SETTINGS: Final = """
max_connections = 60
shared_buffers = 16MB
min_wal_size = 2MB
max_wal_size = 64MB
# Shared memory in its directory: otherwise, a killed server leaves some in /dev/shm.
dynamic_shared_memory_type = mmap
wal_keep_size = 64MB
wal_retrieve_retry_interval = 100ms
log_line_prefix = '%m [%p] %q%a '
"""
_CREATE: Final = b"CREATE ROLE tenantbase LOGIN\nCREATE DATABASE tenantbase OWNER tenantbase\n"
_CANNOT_RUN_AS_ROOT: Final = os.geteuid() == 0


@cache
def programs() -> Path:
    """The directory of the newest PostgreSQL's programs. Debian does not put them on PATH."""
    versions = [each for each in _DEBIAN.glob("*/bin") if (each / "initdb").exists()]
    if versions:
        return max(versions, key=lambda each: int(each.parent.name))
    found = shutil.which("initdb")
    assert found, "these tests need PostgreSQL (the package postgresql)"
    return Path(found).resolve().parent


class PostgresProcess:
    """A PostgreSQL server that can be started and stopped, on a fixed port.

    As a context manager it is started on entry; on exit it ends at once, together with its standbys,
    and its files are removed.

    Args:
        settings: of ``postgresql.conf``, in addition to those of all servers.

    Attributes:
        port: where it listens.
        directory: its files: ``data``, ``log``, and its Unix socket.
        standbys: those made with ``standby``.
        parent: where its directory is made; None: see `make_directory`.
        address: where it listens, besides its Unix socket.
        environment: variables in addition to those of all servers.
    """

    parent: Path | None = None
    address: str = "127.0.0.1"
    environment: Mapping[str, str] = {}

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.directory = make_directory(self.parent)
        self.standbys: list[PostgresProcess] = []
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self.data.exists():
            self.create()
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for standby in self.standbys:
            standby.__exit__()
        self.end()
        shutil.rmtree(self.directory)

    def end(self) -> None:
        """End it at once if it runs, even if it is stopped."""
        if self._process is not None:
            self.resume()
            # Unlike a kill, this removes its shared memory.
            self._end(signal.SIGQUIT)

    def create(self) -> None:
        """Make the files of a new server."""
        _run("cp", "-a", _template(), self.data)
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None, "PostgreSQL does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def host(self) -> str:
        """Its address, as in a URL with several hosts."""
        return f"{self.address}:{self.port}"

    def url(self, database: str = "tenantbase", user: str = "tenantbase") -> str:
        return f"postgresql://{user}@{self.host}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers; a standby, until it answers queries."""
        assert self._process is None, "PostgreSQL is already running"
        command: list[str | Path] = [
            "postgres",
            "-D",
            self.data,
            "-p",
            str(self.port),
            "-k",
            self.directory,
            "-h",
            self.address,
        ]
        with open(self.directory / "log", "ab") as log:
            self._process = _start(*command, output=log.fileno(), environment=self.environment)
        poll(self._answers, f"PostgreSQL in {self.directory} answers", 2 * READY_SECONDS)

    def stop(self) -> None:
        """Shut it down in order: clients are disconnected, and standbys get everything."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all of its processes, as a power failure does."""
        assert self._process is not None, "PostgreSQL does not run"
        pids = self._processes()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._process.wait(READY_SECONDS)
        self._process = None
        # It starts again only when no process is left that has its shared memory.
        poll(lambda: not _living(pids), "PostgreSQL's processes have ended")

    def restart(self) -> None:
        """Kill it and start it: it recovers from its write-ahead log."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop all of its processes: the kernel still accepts connections, but there is no reply."""
        pids = self._processes()
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        # The signal takes a moment: until a process has stopped, it may still answer.
        poll(lambda: not _running(pids), "PostgreSQL's processes are stopped")

    def resume(self) -> None:
        for pid in reversed(self._processes()):
            _signal(pid, signal.SIGCONT)

    def psql(self, database: str = "tenantbase", user: str = SUPERUSER) -> list[str | Path]:
        """The command that runs statements from its standard input."""
        where: list[str | Path] = ["-h", self.directory, "-p", str(self.port), "-U", user]
        options = ["-d", database, "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]
        return [programs() / "psql", *where, *options]

    def has_ended(self) -> bool:
        """Whether it has ended by itself. It can then be started again."""
        if self._process is None or self._process.poll() is None:
            return False
        self._process = None
        return True

    def sql(
        self,
        statement: str,
        database: str = "tenantbase",
        user: str = SUPERUSER,
        seconds: float = READY_SECONDS,
    ) -> str:
        """Run statements, each on its own. Returns: the rows, with "|" between their columns.

        Raises:
            subprocess.CalledProcessError: ``stderr`` says why.
            subprocess.TimeoutExpired: they took longer than ``seconds``.
        """
        run = subprocess.run(
            self.psql(database, user),
            input=statement,
            capture_output=True,
            check=True,
            text=True,
            timeout=seconds,
        )
        return run.stdout.removesuffix("\n")

    def configure(self, **settings: str) -> None:
        """Change settings that need no restart, and wait until they apply to new connections."""
        changes = [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in settings.items()]
        self.sql("\n".join([*changes, "SELECT pg_reload_conf();"]))
        for name, value in settings.items():
            poll(lambda: self.sql(f"SHOW {name}") == value, f"{name} is {value!r}")  # noqa: B023

    def standby(self, name: str = "standby", *, synchronous: bool = True, **settings: str) -> Self:
        """Make and start a standby, which lives as long as this server.

        Args:
            name: what it calls itself; see ``synchronous_standby_names``.
            synchronous: commits wait until it has them.
            settings: its own, of ``postgresql.conf``.
        """
        made = type(self)(**settings)
        self.standbys.append(made)
        made.copy(self, name)
        made.start()
        if synchronous:
            self.configure(synchronous_standby_names=name)
        state = "sync" if synchronous else "async"
        question = f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}'"
        poll(lambda: self.sql(question) == state, f"{name} is {state}")
        return made

    def copy(self, primary: PostgresProcess, name: str, port: int | None = None) -> None:
        """Replace its files by a copy of a primary's, as whose standby it starts.

        Args:
            name: what it calls itself.
            port: where it reaches the primary, if not directly.
        """
        assert self._process is None, "PostgreSQL is running"
        shutil.rmtree(self.data, ignore_errors=True)
        where = f"host={primary.address} port={port or primary.port}"
        source = f"{where} user={SUPERUSER} application_name={name}"
        copying: list[str | Path] = ["pg_basebackup", "-d", source, "-D", self.data, "-R"]
        _run(*copying, "-X", "stream", "--checkpoint=fast", "--no-sync")
        # Where a setting is given twice, the last one counts.
        with open(self.data / "postgresql.auto.conf", "a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in self._settings.items())
            file.write("synchronous_standby_names = ''\n")

    def promote(self) -> None:
        """Make a standby the primary. It then has no synchronous standby, until ``configure``."""
        assert self.sql("SELECT pg_promote(wait => false)") == "t"
        # Its receiver may be connecting to a primary that does not answer, and gives up first.
        primary = "SELECT NOT pg_is_in_recovery()"
        poll(lambda: self.sql(primary) == "t", "it is the primary", 4 * READY_SECONDS)

    def timeline(self) -> int:
        """The timeline on which it writes."""
        return int(self.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[:8], 16)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.directory / "log").read_text(errors="replace")
            raise AssertionError(f"PostgreSQL has ended:\n{log[-2000:]}")
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The last line is its state; a standby that answers queries is ready, too.
        return lines[:1] == [str(self.pid)] and lines[7:8] == ["ready   "]

    def _end(self, by: signal.Signals) -> None:
        assert self._process is not None, "PostgreSQL does not run"
        self._process.send_signal(by)
        self._process.wait(READY_SECONDS)
        self._process = None

    def _processes(self) -> list[int]:
        """Its main process, which is stopped here and starts no others, and its children."""
        assert self._process is not None, "PostgreSQL does not run"
        if self._process.poll() is not None:
            return []  # it has ended by itself, and its children do the same
        _signal(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        return [self.pid, *(pid for pid, parent, _ in _all_processes() if parent == self.pid)]


def _living(pids: list[int]) -> set[int]:
    return {pid for pid, _, _ in _all_processes()}.intersection(pids)


def _running(pids: list[int]) -> set[int]:
    """Which of these processes have neither ended nor been stopped."""
    return {pid for pid, _, state in _all_processes() if state[0] != "T"}.intersection(pids)


def _all_processes() -> Iterator[tuple[int, int, str]]:
    """The ids of all processes that have not ended, and of their parents, and their states."""
    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    for line in listed.splitlines():
        pid, parent, state = line.split(maxsplit=2)
        if not state.startswith("Z"):
            yield int(pid), int(parent), state


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # a child that has just ended


def owner() -> pwd.struct_passwd | None:
    """The user that runs PostgreSQL, which refuses to run as root; None: the current user."""
    return pwd.getpwnam(SUPERUSER) if _CANNOT_RUN_AS_ROOT else None


def make_directory(parent: Path | None = None) -> Path:
    """A directory of PostgreSQL's user, with a path that leaves room for a socket's name.

    The parents of pytest's own directories cannot be read by other users. Without a parent, it is in
    memory, where there is room: starting a server, making a standby and recovering wait for the disk
    most of the time.
    """
    memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES
    directory = tempfile.mkdtemp(prefix="tb-pg-", dir=parent or (_MEMORY if memory else None))
    if (user := owner()) is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
    return Path(directory)


def _start(
    *command: str | Path,
    output: int,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    user = owner()
    program, *arguments = command
    return subprocess.Popen(
        [shutil.which(program, path=f"{programs()}:{os.defpath}") or program, *arguments],
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",  # the current directory may not be readable for that user
        env={"PATH": os.defpath, "LC_ALL": "C", **(environment or {})},
        user=user and user.pw_uid,
        group=user and user.pw_gid,
        extra_groups=user and [],
    )


def _run(*command: str | Path, stdin: bytes = b"") -> None:
    """Run a program as PostgreSQL's user, to its end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = _start(*command, output=output.fileno(), stdin=given.fileno())
        status = process.wait(4 * READY_SECONDS)
        output.seek(0)
        assert status == 0, f"{command[0]}: {output.read().decode(errors='replace')}"


@cache
def _template() -> Path:
    """A data directory to copy. Making one takes seconds."""
    directory = make_directory()
    atexit.register(shutil.rmtree, directory)
    data = directory / "data"
    encoding = ["--encoding=UTF8", "--locale=C", "--data-checksums", "--wal-segsize=1"]
    _run("initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "--no-sync", *encoding)
    with open(data / "postgresql.conf", "a") as file:
        file.write(_SETTINGS)
    _run("postgres", "--single", "-D", data, "postgres", stdin=_CREATE)
    return data
