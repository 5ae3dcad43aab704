"""The targets of a client's requests: how keys and times are put into a URL."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final
from urllib.parse import quote

# Proxies decode paths, merge slashes, resolve dots, and refuse or re-encode other characters, each in
# its own way. Only a key that none of them changes goes into a path; queries and bodies are left alone.
PATH_SAFE: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_~.-]*")


def quoted(text: str) -> str:
    """A key or prefix as a value in a query."""
    return quote(text, safe="")


def expiry_query(ttl: float | None, expires_at: float | None, keep_ttl: bool) -> str:
    """A query with the arguments that are given; empty if there are none."""
    # A query takes decimal numbers; Python writes small and large ones with an exponent.
    given = [
        f"{name}={quote(format(Decimal(str(number)), 'f'))}"
        for name, number in (("ttl", ttl), ("expires_at", expires_at))
        if number is not None
    ]
    if keep_ttl:
        given.append("keep_ttl=true")
    return "?" + "&".join(given) if given else ""
