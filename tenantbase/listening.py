"""The sockets of a server, opened before anything else: a port in use is found at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tenantbase.errors import CannotListen
from tenantbase.listener import Listener

_BACKLOG: Final = 1024
# A name may stand for an address of a family that this machine does not use.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen on the addresses of a host inside the block; port 0 means any free one.

    Raises:
        CannotListen: the host is unknown or is not this machine, or the port is in use or denied.
    """
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        unusable: OSError | None = None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, _, _, _, address in dict.fromkeys(found):
                if sockets:  # all addresses of a name have the port of the first
                    address = (address[0], sockets[0].getsockname()[1], *address[2:])
                try:
                    sockets.append(stack.enter_context(_listen(family, address)))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    unusable = error
            if unusable is not None and not sockets:
                raise unusable
        except UnicodeError as error:  # it has a label that is empty or too long for DNS
            raise CannotListen(f"cannot listen on {host}: it is no host name") from error
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {host} port {port}: {error.strerror or error}"
            ) from error
        yield sockets


def url_of(host: str, sockets: Sequence[socket.socket]) -> str:
    """Where a client on this machine finds the server."""
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
