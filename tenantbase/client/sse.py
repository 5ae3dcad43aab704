"""A parser of server-sent events: lines to blocks (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct):
    """The fields between two empty lines; None if a field is missing.

    Attributes:
        retry: seconds to wait before reconnecting.
    """

    event: str = "message"
    data: str | None = None
    id: str | None = None
    retry: float | None = None


class BlockReader:
    """Collects lines into blocks."""

    def __init__(self) -> None:
        self._block = Block()

    def take(self, line: bytes) -> Block | None:
        """Take a line without its LF. Returns: the block that the line ends, if it ends one."""
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
