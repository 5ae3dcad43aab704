"""Commands that take options of the configuration."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from tenantbase.cli.arguments import Command
from tenantbase.cli.completion import complete
from tenantbase.errors import ConfigError, TenantbaseError
from tenantbase.process.config import OPTIONS, Config


class _UsageError(click.ClickException):
    exit_code = 2


def command(name: str, *options: str) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command: it is called with a ``Config`` and its own parameters.

    Its ``TenantbaseError`` becomes one line on standard error and exit status 1; wrong options
    become one line each and exit status 2.

    Args:
        options: the fields of ``Config`` that the command takes as options.
    """

    def decorate(function: Callable[..., None]) -> Command:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            stated = {option: given.pop(option) for option in options}
            try:
                config = Config.load(stated, os.environ)
                if "log_level" not in options:  # this command has no log for the warnings
                    for line in config.ignored:
                        click.echo(f"Warning: {line}", err=True)
                function(config, **given)
            except ConfigError as error:
                raise _UsageError(str(error).replace("\n", "\nError: ")) from error
            except TenantbaseError as error:
                raise click.ClickException(str(error)) from error

        for option in reversed(OPTIONS):
            if option.name in options:
                default = f"  [{option.default}]" if option.default else ""
                run = click.option(
                    option.flag,
                    option.name,
                    is_flag=option.switch,
                    multiple=option.many,
                    metavar=option.metavar or None,
                    help=option.help + default,
                    shell_complete=complete,
                )(run)
        return click.command(name, cls=Command)(run)

    return decorate
