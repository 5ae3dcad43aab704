"""Opens everything that the server listens on."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from tenantbase.errors import CannotListen
from tenantbase.process.config import Config
from tenantbase.process.endpoints import InheritedEndpoint, TcpEndpoint, UnixEndpoint
from tenantbase.process.service_manager import ServiceManager
from tenantbase.process.sockets import listening_on, url_of
from tenantbase.process.unix_socket import listening_at
from tenantbase.web.transport.listener import InheritedListener

log = logging.getLogger("tenantbase")

_TCP: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Listening:
    """Open listening sockets, and what follows from their addresses.

    Attributes:
        announced: where clients on this machine connect: a URL or ``unix:PATH``, at least one for
            each endpoint.
        exposed: an address that other machines can reach, with its option; None: there is none.
        loopback: there are TCP sockets, and only this machine can reach them. Web pages in its
            browsers can, too; they cannot reach a Unix socket.
    """

    sockets: tuple[socket.socket, ...]
    announced: tuple[str, ...]
    exposed: str | None
    loopback: bool


@contextmanager
def listening(config: Config) -> Iterator[Listening]:
    """Listen inside the block on everything that the options name.

    Raises:
        CannotListen: one of them cannot be opened. None stays open.
    """
    scheme = "http" if config.tls_cert is None else "https"
    sockets: list[socket.socket] = []
    announced: list[str] = []
    exposed = None
    with ExitStack() as stack:
        passed = _Passed(config.manager)
        for endpoint in config.endpoints:
            opened: list[socket.socket]
            if isinstance(endpoint, UnixEndpoint):
                opened = [stack.enter_context(listening_at(endpoint.path, config.socket_mode))]
                announced.append(f"unix:{endpoint.path}")
            elif isinstance(endpoint, InheritedEndpoint):
                opened = list(passed.take(endpoint, stack))
                announced += (_address(each, scheme) for each in opened)
                exposed = exposed or _exposed(f"--listen: {endpoint}", opened)
            else:
                opened = stack.enter_context(listening_on(endpoint.host, endpoint.port))
                announced.append(url_of(endpoint.host, opened, scheme))
                exposed = exposed or _exposed(_shown(endpoint), opened)
            sockets += opened
        if left := passed.left():
            log.warning("these sockets were passed, but no --listen names them: %s", left)
        tcp = any(each.family in _TCP for each in sockets)
        yield Listening(tuple(sockets), tuple(announced), exposed, tcp and exposed is None)


class _Passed:
    """The sockets that the service manager passed, each to be taken once."""

    def __init__(self, manager: ServiceManager) -> None:
        self._names = dict(manager.sockets)

    def take(self, endpoint: InheritedEndpoint, stack: ExitStack) -> Iterator[socket.socket]:
        if endpoint.descriptor is not None:
            taken = [endpoint.descriptor]
        else:
            wanted = endpoint.name
            taken = [fd for fd, name in self._names.items() if wanted in ("", name)]
            if not taken:
                raise CannotListen(
                    f"--listen: {endpoint}: systemd passed "
                    + (
                        f"only {self.left()}"
                        if self._names
                        else "no sockets; is the unit's socket active?"
                    )
                )
        for descriptor in taken:
            self._names.pop(descriptor, None)
            yield stack.enter_context(_inherited(descriptor, endpoint))

    def left(self) -> str:
        return ", ".join(f"{name} (descriptor {fd})" for fd, name in self._names.items())


def _inherited(descriptor: int, endpoint: InheritedEndpoint) -> socket.socket:
    try:
        sock = InheritedListener(descriptor)
    except OSError as error:
        raise CannotListen(
            f"--listen: {endpoint}: descriptor {descriptor} is not a socket: {error.strerror}"
        ) from error
    if (
        sock.family not in (*_TCP, socket.AF_UNIX)
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.close()
        raise CannotListen(
            f"--listen: {endpoint}: descriptor {descriptor} is not a listening stream socket"
            " (a socket unit needs ListenStream= and Accept=no)"
        )
    os.set_inheritable(descriptor, False)  # by a private memcached, for example
    sock.setblocking(False)
    return sock


def _address(sock: socket.socket, scheme: str) -> str:
    if sock.family in _TCP:
        return url_of(None, [sock], scheme)
    return f"unix:{os.fsdecode(sock.getsockname())}"


def _exposed(endpoint: str, sockets: Sequence[socket.socket]) -> str | None:
    """The endpoint as an error names it, if other machines can reach one of its sockets."""
    for sock in sockets:
        if sock.family in _TCP:
            address = sock.getsockname()[0].partition("%")[0]
            if not ipaddress.ip_address(address).is_loopback:
                return endpoint
    return None


def _shown(endpoint: TcpEndpoint) -> str:
    host = str(endpoint.host)
    if endpoint.option == "--host":
        return f"--host: {host}"
    host = f"[{host}]" if ":" in host else host
    return f"--listen: {host}:{endpoint.port}"
