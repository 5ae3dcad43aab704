"""A ``Render`` that tells in which threads it was called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tenantbase.documents import plain_json
from tenantbase.plain_entries import Columns
from tenantbase.scope import DEFAULT


def as_json(entries: Columns) -> bytes:
    """The entries of the default tenant as JSON objects, separated by commas."""
    return plain_json(entries, DEFAULT.plain)


@dataclass
class Rendering:
    """Renders with a function, and notes each call.

    Attributes:
        form: see ``Render``.
        threads: in which it was called.
    """

    function: Callable[[Columns], bytes] = as_json
    form: str = "json"
    threads: list[int] = field(default_factory=list)

    def __call__(self, entries: Columns) -> bytes:
        self.threads.append(threading.get_ident())
        return self.function(entries)
