"""The sockets of a server."""

from __future__ import annotations

import socket

import pytest

from tenantbase.errors import CannotListen
from tenantbase.listening import listening, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_address_of_a_host_listens_on_one_port(host: str) -> None:
    with listening(host, 0) as sockets:
        (port,) = {each.getsockname()[1] for each in sockets}
        for each in sockets:
            socket.create_connection(each.getsockname()[:2], timeout=5).close()
        assert url_of(host, sockets) == f"http://{host}:{port}"
    assert all(each.fileno() == -1 for each in sockets)


def test_a_url_has_brackets_around_ipv6() -> None:
    with listening("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        assert url_of("::1", sockets) == f"http://[::1]:{port}"


def test_a_port_can_be_used_again_at_once() -> None:
    with listening("127.0.0.1", 0) as sockets:
        address = sockets[0].getsockname()
        client = socket.create_connection(address, timeout=5)
        sockets[0].setblocking(True)
        server, _ = sockets[0].accept()
        server.close()  # the server's end is closed first, and stays in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    with listening("127.0.0.1", address[1]) as sockets:
        assert sockets[0].getsockname() == address


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(CannotListen, match=f"^cannot listen on {host} port 0: "):
        with listening(host, 0):
            pass


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_a_host_that_no_name_service_is_asked_for(host: str) -> None:
    with pytest.raises(CannotListen, match=f"^cannot listen on {host}: it is no host name$"):
        with listening(host, 0):
            pass


def test_a_port_in_use_leaves_nothing_open() -> None:
    with listening("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(CannotListen, match="Address already in use"):
            with listening("127.0.0.1", port):
                pass
