"""Whether a client reads what was written to it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

_ACKNOWLEDGED: Final = struct.Struct("=120xQ")  # tcpi_bytes_acked in the kernel's struct tcp_info


def progress(transport: asyncio.Transport) -> int:
    """A number that changes when the peer reads some of what was written.

    The kernel's count is exact. The size of our write buffer is not enough: it may be refilled to
    the same size.
    """
    sock = transport.get_extra_info("socket")
    if sys.platform == "linux" and sock is not None:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
        except (OSError, ValueError):  # not TCP, or just closed
            info = b""
        if len(info) == _ACKNOWLEDGED.size:  # Linux before 4.1 has less
            (acknowledged,) = _ACKNOWLEDGED.unpack(info)
            return int(acknowledged)
    return transport.get_write_buffer_size()
