"""Unique values in which damage is evident."""

from __future__ import annotations

import random
from typing import Final

_SIZES: Final = (0, 20, 100, 1_000, 6_000, 60_000)
_LARGE: Final = 1_040_000  # below the limit of a value, above what fits in a memcached item


def made(token: str, chance: random.Random) -> str:
    """A value that begins with a token, of a random, mostly small size."""
    size = _LARGE if chance.random() < 0.001 else int(chance.choice(_SIZES) * chance.random() ** 3)
    return f"{token} {size} {'x' * size}"


def token_of(value: object) -> str:
    """The token of a value; another text if the value is damaged."""
    if isinstance(value, str):
        token, _, rest = value.partition(" ")
        size, _, filling = rest.partition(" ")
        if size.isdigit() and filling == "x" * int(size):
            return token
    return f"damaged: {str(value)[:80]!r}"
