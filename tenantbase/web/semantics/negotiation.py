"""Content negotiation: weighted lists such as ``Accept`` (RFC 9110, section 12.4.2)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final, Literal

_WEIGHT: Final = re.compile(r"(?:^|;)[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*(?:$|;)")
_SECONDS: Final = re.compile("[0-9]{1,10}")

_CODINGS: Final[tuple[Literal["gzip", "deflate"], ...]] = ("gzip", "deflate")


def weights(text: str) -> dict[str, float]:
    """The items of a header like ``Accept``, in lower case, with their weights from 0 to 1.

    Parameters other than the weight are ignored. A malformed weight counts as 1.
    """
    weighted = {}
    for item in text.lower().split(","):
        name, _, parameters = item.partition(";")
        weight = _WEIGHT.search(parameters)
        weighted[name.strip()] = float(weight[1]) if weight else 1.0
    return weighted


def wants_fresh(cache_control: str) -> bool:
    """Whether ``Cache-Control`` of a request has ``no-cache`` (RFC 9111, section 5.2.1.4)."""
    return "no-cache" in weights(cache_control)


def max_stale(cache_control: str) -> float | None:
    """How old a copy may be, in seconds, by ``max-stale`` (RFC 9111, section 5.2.1.2).

    None if it is missing or malformed. Without a number, any age will do.
    """
    for directive in cache_control.split(","):
        name, given, seconds = directive.strip().partition("=")
        if name.lower() == "max-stale":
            if not given:
                return math.inf
            return float(seconds) if _SECONDS.fullmatch(seconds) else None
    return None


def accepted_coding(accept_encoding: str | None) -> Literal["gzip", "deflate"] | None:
    """The compression that a client accepts (RFC 9110, section 12.5.3), or None.

    Args:
        accept_encoding: the value of that header; None if the request does not have it.
    """
    if accept_encoding is None:
        return None
    accepted = weights(accept_encoding)
    for coding in _CODINGS:
        if accepted.get(coding, accepted.get("*", 0.0)) > 0:
            return coding
    return None


def accepted_among(accept_encoding: str | None, codings: Iterable[str]) -> str:
    """The first of these content codings that a client accepts by name, or ``identity``.

    Args:
        accept_encoding: the value of that header; None if the request does not have it.
        codings: those that are available, the preferred one first.
    """
    accepted = weights(accept_encoding or "")
    return next((coding for coding in codings if accepted.get(coding, 0.0) > 0), "identity")
