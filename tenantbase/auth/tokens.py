"""Secrets of tokens: made here, shown once, and known to the database by their digest alone."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

_START: Final = "tb_"  # so that secret scanners recognise one
_RANDOM_BYTES: Final = 32


def new_secret() -> str:
    """``tb_`` and 43 characters of base64url: 256 random bits."""
    return _START + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(secret: str) -> bytes:
    """The SHA-256 by which the database knows a secret.

    The bits are random, so a slow hash would add nothing. Looking the digest up takes no time that
    depends on the secret: its bytes say nothing about those of the secret.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
