"""Reads many keys in chunks, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from tenantbase.lookup import Lookup
from tenantbase.scope import ScopedKey

CHUNK_KEYS: Final = 256  # keys read at a time, of small values
_FIRST_KEYS: Final = 32  # keys read first, if there are many and their sizes are unknown
# Values read at a time, roughly. The event loop takes about half a millisecond to read them, and they
# stay in the processor's caches until they are sent.
_CHUNK_BYTES: Final = 256 << 10
_HELD_BYTES: Final = 4 << 20  # values held while a receiver, perhaps a slow one, takes them
_LEAST_BYTES: Final = 64 << 10  # room requested before the size is known
_WAIT_SECONDS: Final = 5.0  # for the first values only; later, the receiver has some, and can wait
_MOST_TENANTS: Final = 4_096  # whose sizes are remembered


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


class UsualSizes:
    """The average size of the values that each tenant read last. It decides how large a first chunk
    is."""

    def __init__(self) -> None:
        self._of: dict[str, float] = {}

    def of(self, tenant: str) -> float | None:
        """The average size of a value, in bytes; None if it is not known."""
        return self._of.get(tenant)

    def note(self, tenant: str, size: float) -> None:
        """Note that values of this average size have been read."""
        if len(self._of) >= _MOST_TENANTS:
            self._of.clear()
        self._of[tenant] = size

    def fit(self, tenant: str, keys: int, size: int) -> bool:
        """Whether the values of this many keys probably fit into so many bytes; False: not known."""
        usual = self._of.get(tenant)
        return usual is not None and keys <= CHUNK_KEYS and keys * usual <= size


async def read_in_chunks(
    get_many: Callable[[Sequence[ScopedKey], int], Awaitable[Sequence[Lookup]]],
    keys: Mapping[str, ScopedKey],
    room: Room,
    sizes: UsualSizes,
    tenant: str,
) -> AsyncIterator[list[tuple[str, Lookup]]]:
    """Yields plain keys with their results, in order. The receiver owns the lists.

    Args:
        get_many: reads as many of the first keys as it can, at least one. Its second argument is the
            approximate size of all values.
        keys: the scoped key of each plain one.
        room: for values. Values that were read but find no room are dropped and read again later.
            While results are yielded, it is as large as their values.
        sizes: how large values usually are, for the first chunk.
    """
    at, wanted, usual = 0, _LEAST_BYTES, sizes.of(tenant)
    plain, scoped = list(keys), list(keys.values())
    while at < len(plain):
        await room.reserve(wanted, None if at else _WAIT_SECONDS)
        chunk = scoped[at : at + _fitting(usual, len(plain))]
        found, size = _held(await get_many(chunk, int(len(chunk) * (usual or 0))))
        if not room.keep(size):
            del found
            wanted = size
            continue
        wanted = _LEAST_BYTES
        # There may be fewer results than keys.
        pairs = list(zip(plain[at : at + len(found)], found, strict=True))
        at += len(found)
        usual = size / len(found)
        sizes.note(tenant, usual)
        del found
        yield pairs


def _fitting(usual: float | None, total: int) -> int:
    """How many values to read at a time. ``usual``: their average size in bytes; None: unknown."""
    if usual is None:
        return CHUNK_KEYS if total <= CHUNK_KEYS else _FIRST_KEYS
    return max(1, min(int(_CHUNK_BYTES / usual), CHUNK_KEYS)) if usual else CHUNK_KEYS


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
