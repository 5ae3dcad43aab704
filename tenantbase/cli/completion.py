"""What shells offer for the value of an option, or for an argument."""

from __future__ import annotations

import re
from typing import Final

import click
from click.shell_completion import CompletionItem

_FILE: Final = "FILE"
_WORD: Final = re.compile(r"[a-z]+")  # what is to be replaced is in capitals


def complete_value(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The words in a parameter's placeholder, such as ``off|slow|all``, or a file if it has FILE."""
    placeholder = parameter.metavar or (parameter.name or "").upper()
    alternatives = placeholder.split("|")
    if _FILE in alternatives:
        return [CompletionItem(incomplete, type="file")]
    return [
        CompletionItem(each)
        for each in alternatives
        if _WORD.fullmatch(each) and each.startswith(incomplete)
    ]
