"""``tenantbase tenant create``, ``list``, ``limit`` and ``delete``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import click
import msgspec

from tenantbase.access import Tenant
from tenantbase.cli.arguments import Command, Group
from tenantbase.cli.backend import WHERE, Backend, run
from tenantbase.cli.options import command
from tenantbase.cli.tables import print_records
from tenantbase.errors import InvalidRequest, NoSuchTenant, TenantbaseError
from tenantbase.process import option_types as read
from tenantbase.process.config import Config
from tenantbase.scope import check_tenant

_COLUMNS: Final = {
    "name": "NAME",
    "entries": "ENTRIES",
    "bytes": "BYTES",
    "max_entries": "MAX ENTRIES",
    "max_bytes": "MAX BYTES",
    "max_requests_per_second": "MAX REQUESTS/S",
}
_NONE: Final = "none"
_MOST: Final = 10**15 - 1


def _limit(
    parse: Callable[[str], int],
) -> Callable[[click.Context, click.Parameter, str | None], int | str | None]:
    """A click callback that reads a limit with one of ``option_types``; ``none`` stays as it is."""

    def read_limit(
        ctx: click.Context, param: click.Parameter, text: str | None
    ) -> int | str | None:
        if text is None or text == _NONE:
            return text
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}, or {_NONE}") from error

    return read_limit


def _limits(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each limit."""
    for flag, parse, metavar, text in (
        ("--max-requests-per-second", read.integer(1, 10**9), "N", "Requests over all workers."),
        ("--max-bytes", read.size(0, _MOST), "SIZE", "Bytes of keys and values."),
        ("--max-entries", read.integer(0, _MOST), "N", "Entries."),
    ):
        function = click.option(flag, callback=_limit(parse), metavar=metavar, help=text)(function)
    return function


def _given(limits: dict[str, int | str | None]) -> dict[str, int | None]:
    """Those limits that the command line has, with None for ``none``."""
    return {
        name: None if isinstance(limit, str) else limit
        for name, limit in limits.items()
        if limit is not None
    }


@click.group("tenant", cls=Group)
def tenant() -> None:
    """Create, limit, list and delete tenants: each has keys of its own.

    On a terminal they are printed as a table, otherwise as JSON, one a line.
    """


@command("create", *WHERE)
@click.argument("name")
@_limits
def create(config: Config, name: str, **limits: int | str | None) -> None:
    """Create a tenant, with limits if they are given, and print it."""
    _checked(name)

    async def work(backend: Backend) -> Tenant:
        if name in await _by_name(backend):
            raise TenantbaseError(
                f"the tenant {name!r} exists already; to change its limits, use tenant limit"
            )
        await backend.put_tenant(name, _given(limits))
        return await _found(backend, name)

    _print(run(config, work, create=True))


@command("limit", *WHERE)
@click.argument("name")
@_limits
def limit(config: Config, name: str, **limits: int | str | None) -> None:
    """Change those limits of a tenant that are given, and print it. "none" removes a limit.

    Entries that a tenant has already stay, even beyond a limit.
    """
    _checked(name)
    given = _given(limits)
    if not given:
        raise click.UsageError("Give at least one limit.")

    async def work(backend: Backend) -> Tenant:
        await _found(backend, name)
        await backend.put_tenant(name, given)
        return await _found(backend, name)

    _print(run(config, work))


@command("list", *WHERE)
def list_(config: Config) -> None:
    """Print all tenants with their usage and limits, in the order of their names."""
    _print(*run(config, lambda backend: backend.tenants(), read_only=True))


@command("delete", *WHERE)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask at a terminal.")
def delete(config: Config, name: str, yes: bool) -> None:
    """Delete a tenant, all its entries and its tokens. At a terminal, asks first."""
    _checked(name)
    found = run(config, lambda backend: _found(backend, name))
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        question = f"Delete the tenant {name!r}, its {found.entries:,} entries and its tokens?"
        click.confirm(question, abort=True, err=True)
    run(config, lambda backend: backend.delete_tenant(name))


def _checked(name: str) -> None:
    try:
        check_tenant(name, "NAME")
    except InvalidRequest as error:
        raise click.UsageError(error.detail) from error


async def _by_name(backend: Backend) -> dict[str, Tenant]:
    return {each.name: each for each in await backend.tenants()}


async def _found(backend: Backend, name: str) -> Tenant:
    found = (await _by_name(backend)).get(name)
    if found is None:
        raise NoSuchTenant(name)
    return found


def _print(*tenants: Tenant) -> None:
    records = [
        {"name": each.name, "entries": each.entries, "bytes": each.bytes}
        | msgspec.structs.asdict(each.limits)
        for each in tenants
    ]
    print_records(records, _COLUMNS)


_COMMANDS: Final[tuple[Command, ...]] = (create, list_, limit, delete)
for _command in _COMMANDS:
    tenant.add_command(_command)
