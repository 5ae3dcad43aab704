"""What systemd, or another service manager with its protocols, says in the environment."""

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
    """

    sockets: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ServiceManager:
        """Read the manager's variables; those meant for another process are ignored."""
        count = _number(environ.get("LISTEN_FDS"))
        if not count or _number(environ.get("LISTEN_PID")) != os.getpid():
            return cls()
        names = environ.get("LISTEN_FDNAMES", "").split(":")
        names += ["unknown"] * count  # as systemd calls sockets without a name
        descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + min(count, _MOST_SOCKETS))
        return cls(tuple(zip(descriptors, (name or "unknown" for name in names))))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None
