"""What trusted proxies say of their clients: ``X-Forwarded-For`` and ``X-Forwarded-Proto``.

Anybody can send these fields, so they count only on connections from a trusted network. Each proxy
adds the address of its own peer at the right of ``X-Forwarded-For``: the client is the right-most
address that is not a trusted proxy's, and what is to its left is hearsay. A malformed field is
ignored.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final, Literal

from aiohttp import hdrs
from multidict import MultiMapping

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

X_FORWARDED_PROTO: Final = hdrs.X_FORWARDED_PROTO

_SCHEMES: Final = ("http", "https")
_WITH_PORT: Final = re.compile(
    r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}"
)
# For the head of a plain request, which is printable ASCII.
_FORWARDED_FOR: Final = re.compile(rb"\r\nX-Forwarded-For:[ \t]*+([\x20-\x7e]*)", re.IGNORECASE)
_HOPS: Final = 64  # a longer list is malformed


class Proxies:
    """The networks of trusted proxies.

    Args:
        trusted: ``unix`` stands for the peers of Unix sockets. None: no proxy is trusted.
    """

    def __init__(self, trusted: Sequence[Network | Literal["unix"]] = ()) -> None:
        self._networks = tuple(each for each in trusted if each != "unix")
        self._unix = "unix" in trusted

    def __bool__(self) -> bool:
        return bool(self._networks) or self._unix

    def trusts(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether the peer of a connection is a trusted proxy."""
        if not self or transport is None:
            return False
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            sock = transport.get_extra_info("socket")
            return self._unix and sock is not None and sock.family == socket.AF_UNIX
        address = _address(peer[0])
        return address is not None and self._has(address)

    def client_in(self, head: bytes) -> str | None:
        """As ``client``, for the head of a plain request, which is printable ASCII."""
        return self.client([each.decode() for each in _FORWARDED_FOR.findall(head)])

    def client(self, fields: Sequence[str]) -> str | None:
        """The client's address, from a trusted peer's ``X-Forwarded-For``; None: it is not known.

        Args:
            fields: the field's values, in order.
        """
        hops = ",".join(fields).split(",") if fields else []
        if len(hops) > _HOPS:
            return None
        client = None
        for hop in reversed(hops):
            client = _address(hop.strip())
            if client is None or not self._has(client):
                break
        return None if client is None else str(client)

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def forwarded_scheme(headers: MultiMapping[str]) -> str | None:
    """The scheme of the client's own connection, from a trusted peer's fields; None: not known."""
    fields = headers.getall(X_FORWARDED_PROTO, ())
    scheme = fields[0].strip().lower() if len(fields) == 1 else ""
    return scheme if scheme in _SCHEMES else None


def _address(text: str) -> Address | None:
    """The address that a text states, with a port or without; None if it is malformed."""
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address  # a socket for both families shows IPv4 in this form
