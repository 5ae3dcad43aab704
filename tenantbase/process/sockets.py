"""The TCP sockets of an address, opened before anything else, so that a port in use fails fast."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tenantbase.errors import CannotListen
from tenantbase.web.transport.listener import BACKLOG, Listener

# "localhost" may resolve to either, in either order, and some clients try only one.
_LOOPBACK: Final = ("127.0.0.1", "::1")
# A name may resolve to an address family that this machine does not use.
_UNAVAILABLE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_FREE_PORT_ATTEMPTS: Final = 20  # to find a port that is free on every address

_Address = tuple[int, Any]  # the family, and the argument of bind()


@contextmanager
def listening_on(host: str | None, port: int) -> Iterator[list[socket.socket]]:
    """Listen inside the block on every address of a host, all on the same port.

    Args:
        host: a name or an address; None means both loopback addresses, or the one that exists.
        port: 0 means any free port.

    Raises:
        CannotListen: the host is unknown or is not this machine, or the port is in use or denied.
    """
    addresses = _addresses(host, port)
    attempts = _FREE_PORT_ATTEMPTS if port == 0 else 1
    while True:
        attempts -= 1
        with ExitStack() as stack:
            try:
                sockets = _listen_on_all(addresses, host, stack)
            except CannotListen as error:
                # The port that the kernel picked for the first address is in use on another one.
                in_use = getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
                if in_use and attempts:
                    continue
                raise
            yield sockets
            return


def url_of(host: str | None, sockets: Sequence[socket.socket], scheme: str = "http") -> str:
    """The server's URL for clients on this machine."""
    address, port, *_ = sockets[0].getsockname()
    host = host or address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _addresses(host: str | None, port: int) -> list[_Address]:
    if host is None:
        return [(socket.AF_INET, (_LOOPBACK[0], port)), (socket.AF_INET6, (_LOOPBACK[1], port))]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label is empty or too long for DNS
        raise CannotListen(f"cannot listen on {host}: it is not a host name") from error
    except OSError as error:
        raise _failure(host, port, error) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_on_all(
    addresses: Sequence[_Address], host: str | None, stack: ExitStack
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    unusable: CannotListen | None = None
    for family, address in addresses:
        if sockets:  # the port of the first one, which the kernel may have picked
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
        try:
            sockets.append(stack.enter_context(_listen(family, address)))
        except OSError as error:
            failure = _failure(host or address[0], address[1], error)
            if error.errno not in _UNAVAILABLE:
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
            # On some systems, an IPv6 socket would take the IPv4 port as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
