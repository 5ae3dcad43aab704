"""What a client would rather have: weighted lists (RFC 9110, section 12.4.2)."""

from __future__ import annotations

import re
from typing import Final

_WEIGHT: Final = re.compile(r"(?:^|;)[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*(?:$|;)")


def weights(text: str) -> dict[str, float]:
    """The items of a header like ``Accept``, in lower case, each with its weight from 0 to 1.

    Parameters other than the weight are left out; a malformed weight counts as 1.
    """
    weighted = {}
    for item in text.lower().split(","):
        name, _, parameters = item.partition(";")
        weight = _WEIGHT.search(parameters)
        weighted[name.strip()] = float(weight[1]) if weight else 1.0
    return weighted
