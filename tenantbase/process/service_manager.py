"""What systemd, or a service manager with the same protocols, says in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_FIRST_DESCRIPTOR: Final = 3  # sd_listen_fds(3)
_MOST_SOCKETS: Final = 1024


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """What the manager passed to this process; nothing, if there is none.

    Attributes:
        sockets: the descriptor and the name of each listening socket.
        notify_socket: the address for messages to it; empty: it takes none.
        watchdog_seconds: after how long without a heartbeat it restarts the service; 0: never.
    """

    sockets: tuple[tuple[int, str], ...] = ()
    notify_socket: str = ""
    watchdog_seconds: float = 0.0

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ServiceManager:
        """Read the manager's variables; those meant for another process are ignored."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(_sockets(environ))
        watchdog = 0.0
        if environ.get("WATCHDOG_PID") in (None, "", str(os.getpid())):
            watchdog = (_number(environ.get("WATCHDOG_USEC")) or 0) / 1e6
        return cls(_sockets(environ), address, watchdog)


def _sockets(environ: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    count = _number(environ.get("LISTEN_FDS"))
    if not count or _number(environ.get("LISTEN_PID")) != os.getpid():
        return ()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * count  # as systemd calls sockets without a name
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + min(count, _MOST_SOCKETS))
    return tuple(zip(descriptors, (name or "unknown" for name in names), strict=False))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None
