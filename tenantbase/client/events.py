"""Server-sent events: from lines to blocks (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct):
    """What lies between two empty lines; None: the field was not there.

    Attributes:
        retry: seconds to wait before connecting anew.
    """

    event: str = "message"
    data: str | None = None
    id: str | None = None
    retry: float | None = None


class BlockReader:
    """Puts lines together."""

    def __init__(self) -> None:
        self._block = Block()

    def take(self, line: bytes) -> Block | None:
        """Take a line without its LF; the block that it ended, if it ended one."""
        text = line.decode("utf-8", "replace").removesuffix("\r")
        if not text:
            block, self._block = self._block, Block()
            return block
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        block = self._block
        if name == "event":
            block.event = value
        elif name == "data":
            block.data = value if block.data is None else f"{block.data}\n{value}"
        elif name == "id" and "\0" not in value:
            block.id = value
        elif name == "retry" and value.isascii() and value.isdecimal():
            block.retry = int(value) / 1000
        return None
