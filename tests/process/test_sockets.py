"""The sockets of a server."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tenantbase.errors import CannotListen
from tenantbase.process.sockets import listening_on, url_of
from tests.servers import free_port

pytestmark = pytest.mark.integration  # the package listens

# Runs in a network namespace of its own, whose settings it may change.
_NETWORK = """
import fcntl, socket, struct, sys
from tenantbase.process.sockets import listening_on, url_of

for setting in sys.argv[1:]:
    path, _, value = setting.partition("=")
    with open(f"/proc/sys/net/{path}", "w") as file:
        file.write(value)
with socket.socket() as control:  # netdevice(7): SIOCSIFFLAGS, IFF_UP and IFF_RUNNING
    fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
taken = []
for port in range(40_000, 40_010, 3):
    try:
        taken.append(socket.create_server(("::1", port), family=socket.AF_INET6))
    except OSError:
        pass
for _ in range(20):
    with listening_on(None, 0) as sockets:
        (port,) = {each.getsockname()[1] for each in sockets}
        assert url_of(None, sockets) == f"http://127.0.0.1:{port}"
        print(*(each.getsockname()[0] for each in sockets))
"""


def in_a_network(*settings: str) -> list[str]:
    """The addresses that a server listens on by default, one line per attempt."""
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", _NETWORK, *settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_without_a_host_it_listens_on_both_loopback_addresses() -> None:
    with listening_on(None, 0) as sockets:
        addresses = [each.getsockname()[:2] for each in sockets]
        (port,) = {port for _, port in addresses}
        assert addresses == [("127.0.0.1", port), ("::1", port)]
        for each in addresses:
            socket.create_connection(each, timeout=5).close()
        assert url_of(None, sockets) == f"http://127.0.0.1:{port}"


def test_a_machine_without_ipv6() -> None:
    off = [f"ipv6/conf/{name}/disable_ipv6=1" for name in ("all", "lo")]
    assert in_a_network(*off) == ["127.0.0.1"] * 20


def test_any_free_port_is_free_on_both_addresses() -> None:
    # Of the ten ports that the kernel chooses from, four are taken on ::1.
    range_ = "ipv4/ip_local_port_range=40000 40009"
    assert in_a_network(range_) == ["127.0.0.1 ::1"] * 20


def test_a_port_in_use_on_one_of_both_addresses() -> None:
    port = free_port()  # on 127.0.0.1
    with listening_on("::1", port):
        message = f"^cannot listen on ::1 port {port}: Address already in use$"
        with pytest.raises(CannotListen, match=message):
            with listening_on(None, port):
                pass
        socket.create_server(("127.0.0.1", port)).close()  # nothing was left open


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_address_of_a_host_listens_on_one_port(host: str) -> None:
    with listening_on(host, 0) as sockets:
        (port,) = {each.getsockname()[1] for each in sockets}
        for each in sockets:
            socket.create_connection(each.getsockname()[:2], timeout=5).close()
        assert url_of(host, sockets) == f"http://{host}:{port}"
    assert all(each.fileno() == -1 for each in sockets)


def test_a_url_has_brackets_around_ipv6() -> None:
    with listening_on("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        assert url_of("::1", sockets) == f"http://[::1]:{port}"


def test_a_port_can_be_used_again_at_once() -> None:
    with listening_on("127.0.0.1", 0) as sockets:
        address = sockets[0].getsockname()
        client = socket.create_connection(address, timeout=5)
        sockets[0].setblocking(True)
        server, _ = sockets[0].accept()
        server.close()  # the server's end is closed first, and stays in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    with listening_on("127.0.0.1", address[1]) as sockets:
        assert sockets[0].getsockname() == address


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(CannotListen, match=f"^cannot listen on {host} port 0: "):
        with listening_on(host, 0):
            pass


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_a_host_that_no_name_service_is_asked_for(host: str) -> None:
    with pytest.raises(CannotListen, match=f"^cannot listen on {host}: it is not a host name$"):
        with listening_on(host, 0):
            pass


def test_a_port_in_use_leaves_nothing_open() -> None:
    with listening_on("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(CannotListen, match="Address already in use"):
            with listening_on("127.0.0.1", port):
                pass
