"""Reads many keys in chunks, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from tenantbase.lookup import Lookup
from tenantbase.scope import ScopedKey

CHUNK_KEYS: Final = 256  # keys read at a time
_HELD_BYTES: Final = 4 << 20  # values held while a receiver, perhaps a slow one, takes them
_LEAST_BYTES: Final = 64 << 10  # room requested before the size is known
_WAIT_SECONDS: Final = 5.0  # for the first values only; later, the receiver has some, and can wait
_GROWTH: Final = 8  # the next chunk is this many times larger if values are small


class Room(Protocol):
    """A share of the memory budget for values held while a slow receiver takes them."""

    async def reserve(self, size: int, seconds: float | None) -> None:
        """Change the share to this size, waiting for room; raises if there is none in time."""

    def keep(self, size: int) -> bool:
        """Change the share to this size if there is room. Returns: whether it did."""


class Unlimited:
    """Unlimited room."""

    async def reserve(self, size: int, seconds: float | None) -> None:
        """Return at once."""

    def keep(self, size: int) -> bool:
        """True."""
        return True


async def read_in_chunks(
    get_many: Callable[[Sequence[ScopedKey]], Awaitable[Sequence[Lookup]]],
    keys: Mapping[str, ScopedKey],
    room: Room,
) -> AsyncIterator[list[tuple[str, Lookup]]]:
    """Yields plain keys with their results, in order. The receiver owns the lists.

    Args:
        get_many: reads the first of the keys it is given, at least one.
        keys: the scoped key of each plain one.
        room: for values. Values that were read but find no room are dropped and read again later.
            While results are yielded, it is as large as their values.
    """
    at, count, wanted = 0, CHUNK_KEYS, _LEAST_BYTES
    plain, scoped = list(keys), list(keys.values())
    while at < len(plain):
        await room.reserve(wanted, None if at else _WAIT_SECONDS)
        chunk = scoped[at : at + count]
        found, size = _held(await get_many(chunk))
        if not room.keep(size):
            del found
            wanted = size
            continue
        wanted = _LEAST_BYTES
        # There may be fewer results than keys.
        pairs = list(zip(plain[at : at + len(found)], found, strict=True))
        at += len(found)
        # If values turn out to be large, read no more next than can be held.
        count = min(count * _GROWTH, CHUNK_KEYS) if len(found) == len(chunk) else len(found)
        del found
        yield pairs


def _held(found: Sequence[Lookup]) -> tuple[Sequence[Lookup], int]:
    """The first results, as many as may be held while they are sent, at least one; and their size."""
    sizes = [each.bytes for each in found]
    total = sum(sizes)
    if total <= _HELD_BYTES:
        return found, total
    held = sizes[0]
    for count, size in enumerate(sizes[1:], 1):
        if held + size > _HELD_BYTES:
            return found[:count], held
        held += size
    return found, held
