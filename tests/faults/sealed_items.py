"""Collects the sealed items that servers store in memcached, and puts forged or old ones there."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from tests.servers import FaultProxy, connect

_SET: Final = re.compile(rb"set ([0-9a-f]{32}) \d+ (-?\d+) (\d+)(?: noreply)?\r\n")
_KEPT: Final = 2_000
_LARGEST: Final = 4_096


class ItemCollector:
    """Remembers the items that passed through a proxy.

    Commands of several connections arrive interleaved. Items damaged by that are collected, too:
    damaged items are useful as well.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[bytes, bytes]] = deque(maxlen=_KEPT)

    def collect(self, proxy: FaultProxy) -> None:
        """Collect from the data that a proxy has received since the last call."""
        sent = bytes(proxy.received)
        proxy.received.clear()
        for match in _SET.finditer(sent):
            name, _, size = match.groups()
            if int(size) <= _LARGEST:
                self._items.append((name, sent[match.end() : match.end() + int(size)]))

    def old(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """The newest items, or all, each under its own name, in random order."""
        items = list(self._items)[-chance.choice((10, 50, _KEPT)) :]
        chance.shuffle(items)
        return items

    def swapped(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """Items under each other's names."""
        names = [name for name, _ in self._items]
        chance.shuffle(names)
        return list(zip(names, (item for _, item in self._items), strict=True))

    def damaged(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """Items with a changed byte, truncated, or extended."""
        return [(name, _damaged(item, chance)) for name, item in self._items]

    def foreign(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """Foreign bytes under our names."""
        names = {name for name, _ in self._items}
        return [(name, chance.randbytes(chance.randrange(300))) for name in names]


def filling(chance: random.Random) -> list[tuple[bytes, bytes]]:
    """Foreign items, more than a memcached of two megabytes holds."""
    return [
        (chance.randbytes(16).hex().encode(), bytes(chance.choice((100, 300, 1_000, 5_000))))
        for _ in range(2_000)
    ]


def _damaged(item: bytes, chance: random.Random) -> bytes:
    if not item:
        return b"?"
    at = chance.randrange(len(item))
    changed = bytearray(item)
    match chance.randrange(3):
        case 0:
            # The value is near the end; only the MAC reveals a change there.
            at = max(at, chance.randrange(len(item)))
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            del changed[at:]
        case _:
            changed += b"more"
    return bytes(changed)


def put(address: str, items: list[tuple[bytes, bytes]]) -> None:
    """Store items in memcached directly. Blocks; raises OSError if memcached is down."""
    with connect(address) as connection:
        for commands in _commands(items):
            connection.sendall(commands)
        connection.sendall(b"version\r\n")
        heard = b""
        while b"VERSION" not in heard:
            heard = heard[-len("VERSION") :] + (piece := connection.recv(65_536))
            if not piece:
                raise ConnectionResetError("memcached has ended")


def _commands(items: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, item in items:
        yield b"set %b 0 0 %d noreply\r\n%b\r\n" % (name, len(item), item)
