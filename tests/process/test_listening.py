"""Everything that a server can listen on: ports, Unix sockets, sockets that it inherits."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tenantbase.client import Client
from tenantbase.errors import CannotListen
from tenantbase.pem import client_context
from tenantbase.process.config import Config
from tenantbase.process.endpoints import Endpoint, InheritedEndpoint, TcpEndpoint, UnixEndpoint
from tenantbase.process.listening import listening
from tenantbase.process.service_manager import ServiceManager
from tenantbase.process.unix_socket import listening_at
from tests import wire
from tests.app_server import AppServer
from tests.certificates import Authority
from tests.command import command
from tests.servers import READY_SECONDS, poll

pytestmark = pytest.mark.integration  # the package listens

GET = wire.request("GET", "/livez", headers={"Host": "localhost", "Connection": "close"})
FOREIGN = wire.request("GET", "/livez", headers={"Host": "kv.example", "Connection": "close"})


def unix_client(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(READY_SECONDS)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client


def told(client: socket.socket, data: bytes = GET) -> int:
    """Send a request. Returns: the status of its answer."""
    with client:
        client.sendall(data)
        return wire.receive(client).status


def mode(path: Path) -> str:
    return stat.filemode(os.lstat(path).st_mode)


class PassedServer(AppServer):
    """A server that inherits sockets from a service manager, which is the test.

    Args:
        passed: the sockets by name.
    """

    # Descriptors from 3 on, and the variable that only the new process can set (sd_listen_fds(3)).
    program = (
        "-c",
        """if True:
        import os
        inherited = [os.dup(int(each)) for each in os.environ.pop("INHERITED").split()]
        os.closerange(3, inherited[0])
        for number, descriptor in enumerate(inherited, 3):
            os.dup2(descriptor, number)
        os.environ["LISTEN_PID"] = str(os.getpid())
        from tenantbase.__main__ import run
        run()
        """,
    )

    def __init__(self, database: Path, passed: dict[str, socket.socket], *options: str) -> None:
        descriptors = [sock.fileno() for sock in passed.values()]
        variables = {
            "INHERITED": " ".join(map(str, descriptors)),
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(passed),
        }
        super().__init__(database, *options, environment=variables)
        self.descriptors = descriptors


def test_several_at_once_with_workers(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    options = ("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", f"unix:{path}")
    with AppServer(
        tmp_path / "x.db", *options, "--socket-mode", "0660", "--workers", "2", "--memcached", "off"
    ) as server:
        four, six, local = server.addresses
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", four)
        assert re.fullmatch(r"http://\[::1\]:\d+", six)
        assert local == f"unix:{path}"
        assert mode(path) == "srw-rw----"
        for _ in range(4):
            assert told(unix_client(path)) == 200
        for host, url in (("127.0.0.1", four), ("::1", six)):
            port = int(url.rpartition(":")[2])
            assert told(socket.create_connection((host, port), READY_SECONDS)) == 200
        # Beside a port on loopback, the names are checked on the Unix socket, too.
        assert told(unix_client(path), FOREIGN) == 421
        done = command("set", "--url", local, "key", '"value"')
        assert done.returncode == 0, done.stderr
        assert command("get", "--url", local, "key").stdout == b'"value"\n'
        assert server.stop() == 0
        assert server.stderr == ""
    assert not path.exists()
    done = command("get", "--url", local, "key")
    assert done.returncode == 1 and f"unix:{path} does not answer".encode() in done.stderr


async def test_a_unix_socket_alone_with_tls(tmp_path: Path) -> None:
    """Any name is accepted: no web page reaches a Unix socket."""
    authority, path = Authority(tmp_path / "ca"), tmp_path / "t.sock"
    options = (*authority.issue().options, "--listen", f"unix:{path}", "--memcached", "off")
    with AppServer(tmp_path / "x.db", *options, "--trusted-proxy", "unix") as server:
        assert server.addresses == [f"unix:{path}"] and mode(path) == "srw-------"
        context = client_context(authority.certificate)
        for ask in (GET, FOREIGN):
            with context.wrap_socket(unix_client(path), server_hostname="localhost") as tls:
                assert told(tls, ask) == 200
        # The scheme that a trusted proxy reports decides which origin is the server's own.
        headers = {"Host": "a.example", "X-Forwarded-Proto": "http", "Origin": "http://a.example"}
        body = b'{"key": "k", "value": 1}'
        for trusted, status in ((headers, 200), (headers | {"X-Forwarded-Proto": "https"}, 403)):
            with context.wrap_socket(unix_client(path), server_hostname="localhost") as tls:
                assert told(tls, wire.request("POST", "/set-value", body, trusted)) == status


async def test_the_client_uses_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with AppServer(tmp_path / "x.db", "--listen", f"unix:{path}", "--memcached", "off"):
        async with Client(f"unix:{path}") as client:
            await client.set("k", 1)
            entry = await client.get("k")
            assert entry is not None and entry.value == 1
            async for event in client.watch("k", after=0):
                assert event.version >= 0
                break


@pytest.mark.parametrize("url", ["unix:", "unix"])
def test_a_url_of_a_client_names_a_socket(url: str) -> None:
    with pytest.raises(ValueError, match="unix:/run/tenantbase.sock"):
        Client(url)


def test_a_server_that_stops_answers_all_that_connected(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    faults: list[Exception] = []
    answered = [0] * 4

    def load(number: int) -> None:
        while True:
            try:
                client = unix_client(path)
            except (FileNotFoundError, ConnectionRefusedError):
                return
            try:
                assert told(client) in (200, 503)
                answered[number] += 1
            except Exception as error:
                faults.append(error)
                return

    with AppServer(
        tmp_path / "x.db", "--listen", f"unix:{path}", "--workers", "2", "--memcached", "off"
    ) as server:
        threads = [Thread(target=load, args=(number,)) for number in range(len(answered))]
        for thread in threads:
            thread.start()
        poll(lambda: min(answered) > 20, "all clients are served")
        assert server.stop() == 0
        for thread in threads:
            thread.join(READY_SECONDS)
    assert faults == []


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening_at(path, 0o600):
        with pytest.raises(CannotListen, match="another process listens there"):
            with listening_at(path, 0o600):
                pass
        unix_client(path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_queue_is_not_stale(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen(0)
        client.connect(str(path))
        with pytest.raises(CannotListen, match="another process listens there"):
            with listening_at(path, 0o600):
                pass
    assert mode(path).startswith("s")


def make_link_to_a_socket(path: Path) -> None:
    target = path.with_name("target")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(target))
    path.symlink_to(target)


FOREIGN_FILES: list[Callable[[Path], object]] = [
    lambda path: path.write_text("precious"),
    lambda path: path.mkdir(),
    os.mkfifo,
    make_link_to_a_socket,
]


@pytest.mark.parametrize("make", FOREIGN_FILES, ids=["file", "directory", "pipe", "link"])
def test_what_is_not_a_socket_is_not_touched(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "t.sock"
    make(path)
    before = os.lstat(path)
    message = f"^cannot listen on unix:{path}: there is a file that is not a socket"
    with pytest.raises(CannotListen, match=message):
        with listening_at(path, 0o600):
            pass
    assert os.lstat(path) == before


def test_what_replaced_the_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with listening_at(path, 0o600):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match="No such file or directory"):
        with listening_at(tmp_path / "absent" / "t.sock", 0o600):
            pass


def test_sockets_passed_by_name_survive_restarts(tmp_path: Path) -> None:
    """The port never refuses: what a server leaves in the queue is for its successor."""
    path = tmp_path / "t.sock"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=100) as port,
        socket.socket(socket.AF_UNIX) as local,
        socket.create_server(("127.0.0.1", 0)) as unused,
    ):
        local.bind(str(path))
        local.listen(100)
        passed = {"http": port, "local": local, "other": unused}
        options = ("--listen", "systemd:local", "--listen", "systemd:http", "--workers", "2")
        with PassedServer(tmp_path / "x.db", passed, *options, "--memcached", "off") as server:
            number = port.getsockname()[1]
            assert server.addresses == [f"unix:{path}", f"http://127.0.0.1:{number}"]
            assert "but no --listen names them: other (descriptor 5)" in server.stderr
            assert told(unix_client(path)) == told(wire.connect(number)) == 200
            assert server.stop() == 0
            waiting = [unix_client(path), wire.connect(number)]
            for client in waiting:
                client.sendall(GET)
            server.start()
            for client in waiting:
                assert wire.receive(client).status == 200
                client.close()
            assert server.stop() == 0
        assert path.exists()  # it belongs to the manager


@contextmanager
def passed_here(*sockets: socket.socket) -> Iterator[ServiceManager]:
    """The manager's sockets, each a duplicate that the code under test may close."""
    numbers = [os.dup(sock.fileno()) for sock in sockets]
    yield ServiceManager(tuple((fd, f"s{at}") for at, fd in enumerate(numbers)))


def test_only_listening_sockets_are_accepted_from_a_manager(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, socket.socket() as idle:
        for descriptor, message in (
            (file.fileno(), "is not a socket"),
            (os.dup(idle.fileno()), "is not a listening stream socket"),
            (9999, "is not a socket: Bad file descriptor"),
        ):
            config = Config(listen=(InheritedEndpoint(descriptor=descriptor),))
            with pytest.raises(CannotListen, match=f"^--listen: fd:{descriptor}: .*{message}"):
                with listening(config):
                    pass


@pytest.mark.parametrize("endpoint", [InheritedEndpoint(), InheritedEndpoint("http")])
def test_a_manager_that_passed_nothing(endpoint: Endpoint) -> None:
    message = f"^--listen: {endpoint}: systemd passed no sockets; is the unit's socket active"
    with pytest.raises(CannotListen, match=message):
        with listening(Config(listen=(endpoint,))):
            pass


def test_a_name_that_was_not_passed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        manager = ServiceManager(((server.fileno(), "http"),))
        with pytest.raises(CannotListen, match=r"--listen: systemd:x: systemd passed only http \("):
            with listening(Config(listen=(InheritedEndpoint("x"),), manager=manager)):
                pass


@pytest.mark.parametrize(
    ("variables", "sockets"),
    [
        ({"LISTEN_FDS": "2"}, ((3, "unknown"), (4, "unknown"))),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, ((3, "a"), (4, "b"))),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, ((3, "a"), (4, "unknown"))),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, ()),
        ({"LISTEN_FDS": "1", "LISTEN_PID": ""}, ()),
        ({"LISTEN_FDS": "0"}, ()),
        ({"LISTEN_FDS": "-1"}, ()),
        ({"LISTEN_FDS": "x"}, ()),
    ],
)
def test_variables_of_the_manager(
    variables: dict[str, str], sockets: tuple[tuple[int, str], ...]
) -> None:
    environ = {"LISTEN_PID": str(os.getpid())} | variables
    assert Config.load({}, environ).manager.sockets == sockets


# Endpoints, whether other machines reach them, and whether the names of hosts are checked.
@pytest.mark.parametrize(
    ("endpoints", "exposed", "loopback"),
    [
        ((TcpEndpoint(None, 0, "--host"),), None, True),
        ((TcpEndpoint("127.1.2.3", 0),), None, True),
        ((TcpEndpoint("localhost", 0),), None, True),
        ((TcpEndpoint("::1", 0),), None, True),
        ((TcpEndpoint("0.0.0.0", 0, "--host"),), "--host: 0.0.0.0", False),
        ((TcpEndpoint("::", 0),), r"--listen: \[::\]:0", False),
        ((TcpEndpoint("::1", 0), TcpEndpoint("0.0.0.0", 0)), r"--listen: 0\.0\.0\.0:0", False),
        ((TcpEndpoint("0.0.0.0", 0), TcpEndpoint("::1", 0)), r"--listen: 0\.0\.0\.0:0", False),
        ((UnixEndpoint(Path("t.sock")),), None, False),
        ((UnixEndpoint(Path("t.sock")), TcpEndpoint("::1", 0)), None, True),
        ((InheritedEndpoint("s0"),), None, True),
        ((InheritedEndpoint("s1"),), "--listen: systemd:s1", False),
        ((InheritedEndpoint(),), "--listen: systemd", False),
    ],
)
def test_what_other_machines_reach(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    endpoints: tuple[Endpoint, ...],
    exposed: str | None,
    loopback: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as near,
        closing(socket.create_server(("0.0.0.0", 0))) as far,
        passed_here(near, far) as manager,
        listening(Config(listen=endpoints, manager=manager)) as opened,
    ):
        assert re.fullmatch(exposed or "None", str(opened.exposed))
        assert opened.loopback == loopback
