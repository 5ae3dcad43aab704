"""The frames that servers store in memcached, collected on the way, and put back as malice has it."""

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


class FrameCollector:
    """Remembers frames that passed a proxy.

    Commands of several connections arrive mixed. What is cut by that is collected as well: it is
    damaged, and that is as good.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[bytes, bytes]] = deque(maxlen=_KEPT)

    def collect(self, proxy: FaultProxy) -> None:
        """Take what a proxy has received since the last call."""
        sent = bytes(proxy.received)
        proxy.received.clear()
        for match in _SET.finditer(sent):
            name, _, size = match.groups()
            if int(size) <= _LARGEST:
                self._frames.append((name, sent[match.end() : match.end() + int(size)]))

    def old(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """The newest few, or all, each under its own name; of a name any one comes last."""
        frames = list(self._frames)[-chance.choice((10, 50, _KEPT)) :]
        chance.shuffle(frames)
        return frames

    def swapped(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """Frames under each other's names."""
        names = [name for name, _ in self._frames]
        chance.shuffle(names)
        return list(zip(names, (frame for _, frame in self._frames), strict=True))

    def damaged(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """Frames with a byte changed, cut, or longer."""
        return [(name, _damaged(frame, chance)) for name, frame in self._frames]

    def foreign(self, chance: random.Random) -> list[tuple[bytes, bytes]]:
        """A stranger's bytes under our names."""
        names = {name for name, _ in self._frames}
        return [(name, chance.randbytes(chance.randrange(300))) for name in names]


def filling(chance: random.Random) -> list[tuple[bytes, bytes]]:
    """Items of nobody's, more than a memcached of two megabytes holds."""
    return [
        (chance.randbytes(16).hex().encode(), bytes(chance.choice((100, 300, 1_000, 5_000))))
        for _ in range(2_000)
    ]


def _damaged(frame: bytes, chance: random.Random) -> bytes:
    if not frame:
        return b"?"
    at = chance.randrange(len(frame))
    changed = bytearray(frame)
    match chance.randrange(3):
        case 0:
            # Towards the end lies the value, where nothing but the MAC tells.
            at = max(at, chance.randrange(len(frame)))
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            del changed[at:]
        case _:
            changed += b"more"
    return bytes(changed)


def put(address: str, frames: list[tuple[bytes, bytes]]) -> None:
    """Store frames in a memcached past everybody. Blocks; raises OSError if it is not there."""
    with connect(address) as connection:
        for commands in _commands(frames):
            connection.sendall(commands)
        connection.sendall(b"version\r\n")
        heard = b""
        while b"VERSION" not in heard:
            heard = heard[-len("VERSION") :] + (piece := connection.recv(65_536))
            if not piece:
                raise ConnectionResetError("memcached has ended")


def _commands(frames: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, frame in frames:
        yield b"set %b 0 0 %d noreply\r\n%b\r\n" % (name, len(frame), frame)
