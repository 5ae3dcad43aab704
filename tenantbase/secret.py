"""Secrets as text, and which text can be a token."""

from __future__ import annotations

import re
from typing import Final

_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class Secret(str):
    """Text that its ``repr`` does not show.

    Errors of libraries show whole headers, and reports of errors the variables of every frame.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def bearer_token(text: str) -> Secret:
    """A token as it may stand after ``Authorization: Bearer``. Whether it is valid is not known.

    Raises:
        ValueError: it cannot be one. The text does not contain it.
    """
    if not _BEARER.fullmatch(text):
        raise ValueError("a token is letters, digits and -._~+/, without white space around it")
    return Secret(text)
