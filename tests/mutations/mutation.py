"""A mutation: one small mistake in a source file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent


class Drifted(Exception):
    """The source no longer has the text that a mutation replaces."""


@dataclass(frozen=True)
class Mutation:
    """Replaces a text in one source file by another.

    Attributes:
        name: names the mistake.
        file: relative to the root of the project.
        old, new: the texts; ``old`` occurs exactly once.
        tests: arguments for pytest; at least one of these tests must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, root: Path) -> str:
        """The file's source with the mutation. Raises Drifted."""
        try:
            source = (root / self.file).read_text()
        except FileNotFoundError:
            raise Drifted(f"{self.name}: there is no file {self.file}") from None
        count = source.count(self.old)
        if count != 1:
            raise Drifted(
                f"{self.name}: {self.old!r} occurs {count} times in {self.file}; the mutation must"
                " follow the source, or be removed with the code it was about"
            )
        return source.replace(self.old, self.new)


def of(
    file: str, tests: Sequence[str], changes: Mapping[str, tuple[str, str]]
) -> dict[str, Mutation]:
    """Mutations of one file for the same tests: by name, the old and the new text."""
    return {
        name: Mutation(name, file, old, new, tuple(tests)) for name, (old, new) in changes.items()
    }
