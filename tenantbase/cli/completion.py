"""What shells offer for the value of an option or argument, as ``share/make.py`` installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A click callback that completes what the help says: its words in lower case, or a file.

    ``auto|text|json`` completes each of the three, ``N|auto`` only ``auto``, and ``FILE`` file names.
    """
    from click.shell_completion import CompletionItem

    forms = (param.metavar or (param.name or "").upper()).split("|")
    words = [form for form in forms if form.isalpha() and form.islower()]
    items = [CompletionItem(word) for word in words if word.startswith(incomplete)]
    if "FILE" in forms and not items:
        items.append(CompletionItem(incomplete, type="file"))
    return items
