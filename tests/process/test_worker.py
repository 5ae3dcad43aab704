"""The lifecycle of a server: a real process, from its first line of output to its last file."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests import wire
from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.faults import strace
from tests.process.test_config import INJECTED
from tests.servers import MemcachedProcess, poll, stopped_writer

pytestmark = pytest.mark.integration

WORKERS = [pytest.param((), id="one"), pytest.param(("--workers", "2"), id="two")]


def set_value(server: AppServer, key: str, value: int) -> None:
    body = b'{"key": "%b", "value": %d}' % (key.encode(), value)
    assert server.ask("POST", "/set-value", body).status == 200


def drains(server: AppServer) -> bool:
    """Whether the server's answer says that it is draining. A closed server does not answer."""
    try:
        return server.ask("GET", "/health-check").status == 503
    except (OSError, http.client.HTTPException):
        return False


def health(server: AppServer) -> str:
    return str(server.ask("GET", "/health-check").json["status"])


@pytest.fixture
def private_directory(short_path: Path) -> Path:
    """The TMPDIR in which servers keep their private files."""
    return short_path


@pytest.fixture(scope="module")
def sound_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as a server leaves it."""
    with AppServer(tmp_path_factory.mktemp("sound") / "x.db") as server:
        set_value(server, "k", 1)
        assert server.stop() == 0
    return server.database


class SlowRequest:
    """A request whose body is sent in two parts; the server has begun it after the first."""

    def __init__(self, server: AppServer) -> None:
        self._body = b'{"key": "slow", "value": "%b"}' % (b"x" * 300_000)
        self._connection = wire.connect(server.port)
        head = (
            f"POST /set-value HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
            f"Content-Length: {len(self._body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._connection.sendall(head.encode())
        # The server sends this when the request has reached its handler.
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert self._connection.recv(len(interim), socket.MSG_WAITALL) == interim
        self._connection.sendall(self._body[:1000])

    def finish(self) -> int:
        """Send the rest. Returns: the status of the answer."""
        self._connection.sendall(self._body[1000:])
        with self._connection:
            return wire.receive(self._connection).status

    def abandon(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_and_leaves_only_the_database(
    tmp_path: Path, private_directory: Path, workers: tuple[str, ...], by: signal.Signals
) -> None:
    database = tmp_path / "db" / "x.db"
    database.parent.mkdir()
    environment = {"TMPDIR": str(private_directory)}
    with AppServer(database, *workers, environment=environment) as server:
        set_value(server, "k", 1)
        assert health(server) == "ok"
        assert {path.name for path in database.parent.iterdir()} >= {"x.db", "x.db-tags"}
        assert len(list(private_directory.iterdir())) == 1
        server.signal(by)
        assert server.wait() == 0
        assert server.stderr == ""
        assert list(database.parent.iterdir()) == [database]
        assert list(private_directory.iterdir()) == []
        server.start()
        assert server.ask("GET", "/get-value?key=k").json["value"] == 1
        assert server.stop() == 0


def test_all_files_are_private(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        set_value(server, "k", 1)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    names = ["x.db", "x.db-lock", "x.db-reserve", "x.db-shm", "x.db-tags", "x.db-wal"]
    assert modes == dict.fromkeys(names, 0o600)


@pytest.mark.parametrize("workers", WORKERS)
def test_requests_in_flight_are_finished(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with AppServer(tmp_path / "x.db", *workers) as server:
        requests = [SlowRequest(server) for _ in range(3)]
        server.signal()
        if not workers:  # one of the two workers may have had no request, and have exited
            poll(lambda: drains(server), "health says that the server drains")
            answer = server.ask("GET", "/health-check")
            assert answer.status == 503 and answer.headers["Connection"] == "close"
        assert [request.finish() for request in requests] == [200, 200, 200]
        assert server.wait() == 0
        assert server.stderr == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [("default/slow",)]


def test_an_idle_connection_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        with wire.connect(server.port) as used, wire.connect(server.port) as unused:
            used.sendall(wire.request("GET", "/livez"))
            assert wire.receive(used).status == 200
            server.signal()
            assert server.wait(seconds=25) == 0  # by default, requests get 30 s
            assert unused.recv(1) == b""


@pytest.mark.parametrize("workers", WORKERS)
def test_an_endless_request_is_cut_off(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with AppServer(tmp_path / "x.db", "--drain-timeout", "0.2", *workers) as server:
        request = SlowRequest(server)
        server.signal()
        assert server.wait() == 0
        assert "1 requests did not finish in time" in server.stderr
        request.abandon()
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, private_directory: Path, workers: tuple[str, ...], second: signal.Signals
) -> None:
    environment = {"TMPDIR": str(private_directory)}
    with AppServer(tmp_path / "x.db", *workers, environment=environment) as server:
        request = SlowRequest(server)
        server.signal()
        poll(lambda: drains(server), "the first signal has arrived")
        server.signal(second)
        assert server.wait() == 128 + second
        request.abandon()
        poll(lambda: not list(private_directory.iterdir()), "memcached is gone")


@pytest.mark.parametrize("workers", WORKERS)
def test_a_database_that_cannot_be_closed_is_abandoned(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    database = tmp_path / "x.db"
    with AppServer(database, "--write-timeout", "2", *workers) as server:
        set_value(server, "k", 1)
        with open(f"{database}-lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # as a process that is stopped during a write would
            answer = server.ask("POST", "/set-value", b'{"key": "k", "value": 2}')
            assert answer.status == 503
            assert server.ask("GET", "/get-value?key=k").json["value"] == 1
            assert server.stop() == 1
        assert f"{database} was not closed in 2 s" in server.stderr
        assert "Traceback" not in server.stderr
        server.start()
        assert server.ask("GET", "/get-value?key=k").json["value"] in (1, 2)
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == [database]


def test_it_says_what_it_waits_for(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    lock = os.open(f"{database}-lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with closing(AppServer(database)) as server:
        server.spawn()
        poll(lambda: "another process holds the write lock" in server.stderr, "it says so")
        os.close(lock)
        server.await_ready()
        set_value(server, "k", 1)
        assert server.stop() == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_waiting_to_open_times_out(tmp_path: Path, workers: tuple[str, ...]) -> None:
    database = tmp_path / "x.db"
    with (
        stopped_writer(database),
        closing(AppServer(database, "--write-timeout", "0.3", *workers)) as server,
    ):
        server.spawn()
        assert server.wait() == 1
        message = f"cannot lock {database}-lock in 0.3 s: another process holds it"
        assert server.stderr == f"Error: {message}\n"


def sqlite(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def overwrite(database: Path, offset: int, data: bytes) -> None:
    with open(database, "r+b") as file:
        file.seek(offset)
        file.write(data)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def read_only(database: Path) -> Iterator[None]:
    # A format that may be read but not written (SQLite file format, section 1.3.3): it stops root,
    # too, unlike file modes.
    overwrite(database, 18, b"\x03")
    yield


@contextmanager
def damaged(database: Path) -> Iterator[None]:
    overwrite(database, 100, b"\xff" * 1000)
    yield


@contextmanager
def no_database(database: Path) -> Iterator[None]:
    database.write_bytes(b"something else\n" * 500)
    yield


@contextmanager
def foreign(database: Path) -> Iterator[None]:
    sqlite(database, "PRAGMA application_id = 1")
    yield


@contextmanager
def newer(database: Path) -> Iterator[None]:
    sqlite(database, "PRAGMA user_version = 999")
    yield


@contextmanager
def a_directory(database: Path) -> Iterator[None]:
    database.unlink()
    database.mkdir()
    yield


@contextmanager
def no_tag_file(database: Path) -> Iterator[None]:
    Path(f"{database}-tags").mkdir()
    yield


# An unusable database, and the server's message.
TROUBLES: list[tuple[Callable[[Path], AbstractContextManager[None]], str]] = [
    (locked, "cannot open {}: it is locked by another program"),
    (read_only, "cannot open {}: it is read-only"),
    (damaged, "cannot open {}: it is damaged"),
    (no_database, "cannot open {}: it is not a database"),
    (foreign, "cannot open {}: it is a database of another program"),
    (newer, "cannot open {}: it was made by a newer tenantbase (schema 999, this one knows"),
    (a_directory, "cannot open {}: it is not a file"),
    (no_tag_file, "{}-tags is in the way"),
]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(("trouble", "message"), TROUBLES)
def test_a_database_that_cannot_be_used(
    tmp_path: Path,
    private_directory: Path,
    sound_database: Path,
    trouble: Callable[[Path], AbstractContextManager[None]],
    message: str,
    workers: tuple[str, ...],
) -> None:
    database = tmp_path / "db" / "x.db"
    database.parent.mkdir()
    shutil.copyfile(sound_database, database)
    with trouble(database):
        before = sorted(database.parent.iterdir())
        server = AppServer(database, *workers, environment={"TMPDIR": str(private_directory)})
        with closing(server):
            server.spawn()
            assert server.wait() == 1
            assert server.stderr.startswith("Error: " + message.format(database))
            assert len(server.stderr.splitlines()) == 1
        assert sorted(database.parent.iterdir()) == before
        assert list(private_directory.iterdir()) == []


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    assert refusal("--database", str(directory / "x.db")) == (
        f"there is no directory {directory} for the database"
    )


def test_a_port_in_use(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        message = refusal("--database", str(tmp_path / "y.db"), "--port", str(server.port))
        assert message == f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"
        assert health(server) == "ok"
    assert not (tmp_path / "y.db").exists()


def test_another_machines_address_is_refused(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: no machine has an address in it (RFC 5737).
    message = refusal("--host", "192.0.2.1", "--insecure", "--database", str(tmp_path / "x.db"))
    assert message.startswith("cannot listen on 192.0.2.1 port 8000: ")


def refusal(*options: str) -> str:
    """The one line that `tenantbase serve` writes when it refuses to start."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tenantbase", "serve", *options],
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        env=clean_environment(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_options_from_the_environment(tmp_path: Path) -> None:
    environment = {"TENANTBASE_MEMCACHED": "off", "TENANTBASE_MAX_VALUE_BYTES": "5"}
    with AppServer(tmp_path / "x.db", environment=environment) as server:
        assert server.ask("GET", "/health-check").json["cache"] == "off"
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 12345}').status == 200
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 123456}').status == 413
    with AppServer(tmp_path / "x.db", "--max-value-bytes", "6", environment=environment) as server:
        assert server.ask("POST", "/set-value", b'{"key": "k", "value": 123456}').status == 200


@pytest.mark.parametrize("workers", WORKERS)
def test_variables_of_an_orchestrator_do_not_stop_it(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    environment = {f"TENANTBASE_{name}": text for name, text in INJECTED.items()}
    with AppServer(tmp_path / "x.db", *workers, environment=environment) as server:
        set_value(server, "k", 1)
        assert server.stop() == 0
        (line,) = server.stderr.splitlines()
        message = json.loads(line)["message"]
        assert "TENANTBASE_SERVICE_HOST" in message and message.endswith("service of this name")


def test_the_variables_of_an_orchestrator_are_reported(tmp_path: Path) -> None:
    with AppServer(tmp_path / "taken.db") as other:  # an explicit port, not the default
        done = subprocess.run(
            [sys.executable, "-m", "tenantbase", "serve", "--host", "192.0.2.1", "--insecure"],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            cwd=tmp_path,
            env=clean_environment(TENANTBASE_PORT=f"tcp://10.0.0.1:{other.port}"),
        )
    told, refused = done.stderr.splitlines()
    assert "TENANTBASE_PORT: 'tcp://10.0.0.1:" in told and "is ignored: Kubernetes" in told
    assert refused.startswith("Error: cannot listen on 192.0.2.1 port 8000: ")


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_with_a_name_that_is_not_utf_8_is_shown(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    database = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db"))
    database.write_bytes(b"something else\n" * 500)
    assert refusal("--database", str(database), "--port", "0", *workers) == (
        f"cannot open {tmp_path}/\\udcff.db: it is not a database"
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_a_file_system_without_locks(tmp_path: Path, workers: tuple[str, ...]) -> None:
    database = tmp_path / "x.db"
    command = [sys.executable, "-W", "error", "-m", "tenantbase", "serve", *workers]
    command += ["--database", str(database), "--port", "0"]
    done = subprocess.run(
        strace.injecting("flock:error=ENOLCK", command),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: cannot lock the tag file {database}-tags: ")
    assert list(tmp_path.iterdir()) == []


def test_it_is_found_at_either_address_of_this_machine(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "2") as server:
        assert server.base_url == f"http://127.0.0.1:{server.port}"
        for host in ("127.0.0.1", "::1"):
            for _ in range(4):
                with closing(http.client.HTTPConnection(host, server.port, timeout=20)) as client:
                    client.request("GET", "/health-check")
                    assert client.getresponse().status == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("host", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1"), ("127.0.0.2", "127.0.0.1")]
)
def test_a_host_that_is_given_is_the_only_one(tmp_path: Path, host: str, other: str) -> None:
    with AppServer(tmp_path / "x.db", "--host", host) as server:
        shown = f"[{host}]" if ":" in host else host
        assert server.base_url == f"http://{shown}:{server.port}"
        socket.create_connection((host, server.port), timeout=20).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, server.port), timeout=20)


def test_it_starts_without_its_memcached(tmp_path: Path) -> None:
    with MemcachedProcess() as memcached:
        memcached.kill()
        with AppServer(tmp_path / "x.db", "--memcached", memcached.address) as server:
            set_value(server, "k", 1)
            assert server.ask("GET", "/get-value?key=k").json["value"] == 1
            poll(lambda: health(server) == "degraded", "memcached is found missing")
            memcached.start()
            poll(lambda: health(server) == "ok", "memcached is found again")
            assert server.stop() == 0
            assert memcached.command(b"version\r\n").startswith(b"VERSION ")


def test_a_private_memcached_goes_with_a_server_that_is_killed(
    tmp_path: Path, private_directory: Path
) -> None:
    with AppServer(tmp_path / "x.db", environment={"TMPDIR": str(private_directory)}) as server:
        (directory,) = private_directory.iterdir()
        socket_path = directory / "memcached"
        assert answers(socket_path)
        server.kill()
        poll(lambda: not answers(socket_path), "memcached ends")
        poll(lambda: not directory.exists(), "its directory is removed")


def answers(path: Path) -> bool:
    """Whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_expired_entries_are_removed(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        values = b",".join(b'{"key": "%d", "value": 1, "ttl": 0.01}' % n for n in range(1200))
        assert server.ask("POST", "/set-values", b'{"values": [%b]}' % values).status == 200
        set_value(server, "k", 1)
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:

            def rows() -> int:
                (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
                return int(count)

            poll(lambda: rows() == 1, "the expired rows are removed")
