"""Text that the log shows only if the operator asked for it: keys, with ``--log-keys``."""

from __future__ import annotations


class Withheld:
    """An argument of a log line that may be shown. Its ``str`` is a placeholder.

    Args:
        text: as it is shown with ``--log-keys``.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return "(shown with --log-keys)"
