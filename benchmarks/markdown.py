"""Markdown for the results: tables, units, and the sections of README.md that the runs write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

README: Final = Path(__file__).with_name("README.md")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    lines = []
    for row in (header, rule, *rows):
        cells = [text.ljust(max(3, width)) for text, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """A duration, with about three digits."""
    number = seconds * 1e3
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f} ms"


def megabytes(size: float) -> str:
    """A size in megabytes."""
    return f"{size / 1e6:,.1f} MB"


def write_section(name: str, command: str, text: str, readme: Path = README) -> None:
    """Replace a section of README.md, which stands between two marks.

    Args:
        name, command: those in the marks: the section's name, and what writes it.
    """
    begin, end = f"<!-- {name}: written by {command} -->", f"<!-- end of {name} -->"
    before, found, rest = readme.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    assert found and found_end, f"{readme.name} has lost the marks of its section {name}"
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
