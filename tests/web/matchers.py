"""Matchers for values that differ between answers: each is equal to all values of its kind."""

from __future__ import annotations

import re


class Like:
    """Equal to any text that the pattern fully matches."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self._pattern, other) is not None

    def __repr__(self) -> str:
        return f"<like {self._pattern}>"


class Is:
    """Equal to any instance of a type."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __eq__(self, other: object) -> bool:
        return type(other) is self._kind

    def __repr__(self) -> str:
        return f"<any {self._kind.__name__}>"


ID = Like("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
VERSION = Is(int)
MOMENT = Is(float)
TEXT = Is(str)
