"""Identifiers of new entries: random UUIDs (RFC 9562, version 4)."""

from __future__ import annotations

import os
from typing import Final

_BYTES: Final = 16
_DIGITS: Final = 2 * _BYTES
# The variant takes the upper two bits of its digit.
_VARIANTS: Final = {f"{digit:x}": f"{0x8 | digit & 0x3:x}" for digit in range(16)}


def new_ids(count: int) -> list[str]:
    """So many new identifiers, each in the 36-character form.

    ``uuid.uuid4`` takes five times as long, with a system call and an object for each.
    """
    text = os.urandom(_BYTES * count).hex()
    return [
        f"{text[at:at + 8]}-{text[at + 8:at + 12]}-4{text[at + 13:at + 16]}"
        f"-{_VARIANTS[text[at + 16]]}{text[at + 17:at + 20]}-{text[at + 20:at + 32]}"
        for at in range(0, len(text), _DIGITS)
    ]


def new_id() -> str:
    """A new identifier."""
    (identifier,) = new_ids(1)
    return identifier
