"""Where the server listens: what ``--listen`` can name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP port.

    Attributes:
        host: a name or an address; None: both loopback addresses, or the one that exists.
        port: 0 picks a free one.
        option: the option that names it.
    """

    host: str | None
    port: int
    option: str = "--listen"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A Unix socket, which the server creates and removes."""

    path: Path


@dataclass(frozen=True, slots=True)
class InheritedEndpoint:
    """Listening sockets that are already open when the process starts.

    Attributes:
        name: those that systemd passed under this name; empty: all that it passed.
        descriptor: only this one, whichever process opened it.
    """

    name: str = ""
    descriptor: int | None = None

    def __str__(self) -> str:
        if self.descriptor is not None:
            return f"fd:{self.descriptor}"
        return f"systemd:{self.name}" if self.name else "systemd"


Endpoint = TcpEndpoint | UnixEndpoint | InheritedEndpoint
