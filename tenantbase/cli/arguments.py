"""Commands whose arguments may look like options: ``tenantbase set counter -5``."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from tenantbase.cli.output import discard_standard_output

# A negative number in JSON's notation. No option looks like one.
_NEGATIVE: Final = re.compile(r"-\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ESCAPE: Final = "\0"  # cannot occur in a process's arguments


def as_given(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A click callback that undoes the escaping of negative numbers."""
    return None if value is None else value.removeprefix(_ESCAPE)


class _Explained(click.Command):
    """A command that fails with one line, not a traceback, if its help cannot be printed."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError:
            raise
        except OSError as error:
            discard_standard_output()
            text = f"cannot write to standard output: {error.strerror}"
            raise click.ClickException(text) from error


class Command(_Explained):
    """Takes negative numbers as arguments; explains how to pass others that look like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            flag
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for flag in option.opts
        }
        escaped: list[str] = []
        for index, arg in enumerate(args):
            if arg == "--":
                escaped += args[index:]
                break
            is_value = index > 0 and args[index - 1] in takes_value
            escaped.append(_ESCAPE + arg if _NEGATIVE.fullmatch(arg) and not is_value else arg)
        try:
            return super().parse_args(ctx, escaped)
        except click.NoSuchOption as error:
            if not any(isinstance(param, click.Argument) for param in self.params):
                raise
            hint = "To give it as an argument, put -- before it."
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error


class Group(_Explained, click.Group):
    """A group whose commands are ``Command``."""

    command_class = Command
