"""Shows what a run is doing."""

from __future__ import annotations

import sys


class Progress:
    """Shows progress on a terminal.

    Attributes:
        last: the last text, which says where a run failed.
    """

    last = "start"

    def __call__(self, text: str) -> None:
        """Replace the text that is shown; an empty one removes it."""
        self.last = text or self.last
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
