"""The sockets of a server, opened before anything else: a port in use is found at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tenantbase.errors import CannotListen
from tenantbase.web.transport.listener import Listener

_BACKLOG: Final = 1024
# The addresses of "localhost", in either order: clients that try one of them only must find us.
_LOOPBACK: Final = ("127.0.0.1", "::1")
# A name may stand for an address of a family that this machine does not use.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ATTEMPTS: Final = 20  # to find a port that is free on every address

_Address = tuple[int, Any]  # its family, and what bind() takes


@contextmanager
def listening(host: str | None, port: int) -> Iterator[list[socket.socket]]:
    """Listen on the addresses of a host inside the block; all of them have one port.

    Args:
        host: a name or an address; None: both loopback addresses, or the one there is.
        port: 0 means any free one.

    Raises:
        CannotListen: the host is unknown or is not this machine, or the port is in use or denied.
    """
    addresses = _addresses(host, port)
    attempts = _ATTEMPTS if port == 0 else 1
    while True:
        attempts -= 1
        with ExitStack() as stack:
            try:
                sockets = _listen_on_all(addresses, host, stack)
            except CannotListen as error:
                # The kernel chose a port for the first address that is in use on another.
                in_use = getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
                if in_use and attempts:
                    continue
                raise
            yield sockets
            return


def url_of(host: str | None, sockets: Sequence[socket.socket], scheme: str = "http") -> str:
    """Where a client on this machine finds the server."""
    address, port, *_ = sockets[0].getsockname()
    host = host or address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _addresses(host: str | None, port: int) -> list[_Address]:
    if host is None:
        return [(socket.AF_INET, (_LOOPBACK[0], port)), (socket.AF_INET6, (_LOOPBACK[1], port))]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # it has a label that is empty or too long for DNS
        raise CannotListen(f"cannot listen on {host}: it is no host name") from error
    except OSError as error:
        raise _failure(host, port, error) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_on_all(
    addresses: Sequence[_Address], host: str | None, stack: ExitStack
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    unusable: CannotListen | None = None
    for family, address in addresses:
        if sockets:  # the port of the first, also where that was chosen by the kernel
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
        try:
            sockets.append(stack.enter_context(_listen(family, address)))
        except OSError as error:
            failure = _failure(host or address[0], address[1], error)
            if error.errno not in _NOT_HERE:
                raise failure from error
            unusable = failure
    if unusable is not None and not sockets:
        raise unusable
    return sockets


def _failure(host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(f"cannot listen on {host} port {port}: {error.strerror or error}")


def _listen(family: int, address: Any) -> socket.socket:
    sock = Listener(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else it would take the IPv4 port as well, on some systems and not on others.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
