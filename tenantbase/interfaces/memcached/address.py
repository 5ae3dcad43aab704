"""Where a memcached listens. A leaf, so that the configuration needs no driver to parse it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

# sockaddr_un holds 108 bytes with the closing zero on Linux, 104 on macOS and the BSDs.
LONGEST_PATH = 103
"""The longest path of a Unix socket, in bytes."""

_LABEL = "[A-Za-z0-9_-]{1,63}"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_PORT = re.compile("[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class MemcacheAddress:
    """`host` and `port`, or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> MemcacheAddress:
        """Read `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`. Equal addresses have equal texts.

        Raises:
            ValueError: it is none of these; the text says why.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path or "\0" in path or len(os.fsencode(path)) > LONGEST_PATH:
                raise ValueError(f"{text!r}: a socket's path has 1 to {LONGEST_PATH} bytes")
            return cls(path=path)
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            try:
                host = str(ipaddress.IPv6Address(host[1:-1]))
            except ValueError:
                raise ValueError(f"{text!r}: no IPv6 address between the brackets") from None
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address is written in brackets, [::1]:11211")
        elif len(host) > 253 or not _HOST.fullmatch(host):
            raise ValueError(f"{text!r} is neither HOST:PORT nor unix:PATH")
        if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
        return cls(host=host.lower(), port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
