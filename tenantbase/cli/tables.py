"""Records for people and programs: a table on a terminal, otherwise lines of JSON."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tenantbase.cli.output import standard_output

Cell = str | int | None

_GAP: Final = "  "
_NOTHING: Final = "-"


def print_records(records: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> None:
    """Print records to standard output.

    Args:
        records: as the HTTP API has them, which is how programs get them, one a line.
        columns: for people: a heading for each field to show. Fields whose name ends with ``_at``
            are times.

    Raises:
        CannotWrite: standard output cannot be written.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        rows = [[_cell(field, record[field]) for field in columns] for record in records]
        text = table(list(columns.values()), rows)
    else:
        text = "".join(msgspec.json.encode(record).decode() + "\n" for record in records)
    with standard_output() as output:
        output.write(text.encode())


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Lines with aligned columns: numbers to the right, text to the left; None is a dash."""
    lines = [list(headings), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = [any(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
    right = right or [False] * len(headings)
    return "".join(
        _GAP.join(
            " " * (width - _width(text)) + text if to_right else text + " " * (width - _width(text))
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _cell(field: str, value: object) -> Cell:
    if value is None:
        return None
    if field.endswith("_at") and isinstance(value, int | float):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    return value if isinstance(value, int) else str(value)


def _text(cell: Cell) -> str:
    if cell is None:
        return _NOTHING
    if isinstance(cell, int):
        return f"{cell:,}"
    # Keys may have any characters, and some of them would control the terminal.
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in cell
    )


def _width(text: str) -> int:
    """Columns of a terminal that it takes up."""
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )
