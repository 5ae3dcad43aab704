"""``tenantbase token create``, ``list``, ``revoke`` and ``disable``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Final

import click
import msgspec

from tenantbase.access import TokenScope
from tenantbase.cli.arguments import Command, Group
from tenantbase.cli.backend import WHERE, Backend, run
from tenantbase.cli.input import given_or_prompted
from tenantbase.cli.options import command
from tenantbase.cli.output import standard_output
from tenantbase.cli.tables import print_records
from tenantbase.entry import check_text, expiry
from tenantbase.errors import CannotWrite, ConfigError, Damaged, TenantbaseError
from tenantbase.process.config import Config
from tenantbase.scope import DEFAULT

_COLUMNS: Final = {
    "id": "ID",
    "name": "NAME",
    "scope": "SCOPE",
    "tenant": "TENANT",
    "prefix": "PREFIX",
    "created_at": "CREATED",
    "expires_at": "EXPIRES",
}
_SCOPES: Final = tuple(str(scope) for scope in TokenScope)
_OWNED: Final = (TokenScope.READ, TokenScope.WRITE)  # belong to a tenant


@click.group("token", cls=Group)
def token() -> None:
    """Make, list and revoke tokens. The first one closes the database to all without a token.

    On a terminal they are printed as a table, otherwise as JSON, one a line.
    """


@command("create", *WHERE, "tenant")
@click.argument("name", required=False)
@click.option(
    "--scope",
    type=click.Choice(_SCOPES),
    help="What it allows. write includes read; metrics is for scrapers; admin allows everything.",
)
@click.option("--prefix", metavar="TEXT", help="To read or write only keys with this prefix.")
@click.option("--ttl", type=float, metavar="SECONDS", help="Expire after this many seconds.")
def create(
    config: Config, name: str | None, scope: str | None, prefix: str | None, ttl: float | None
) -> None:
    """Make a token and print it, and nothing else: it cannot be shown again.

    NAME says what it is for, and is the scope if it is missing. A token to read or write is for the
    keys of --tenant. The first token closes the database: from then on, every request needs one.
    """
    expiry(0, ttl, None)
    given = _scope(given_or_prompted("Scope", scope))
    check_text(prefix or "", "prefix")
    tenant = config.tenant
    source = click.get_current_context().get_parameter_source("tenant")
    if given not in _OWNED and source is not click.core.ParameterSource.COMMANDLINE:
        tenant = None  # TENANTBASE_TENANT is for other commands

    async def work(backend: Backend) -> None:
        made, secret = await backend.create_token(
            given if name is None else name, given, tenant=tenant, prefix=prefix, ttl=ttl
        )
        try:
            with standard_output() as output:
                output.write(secret.encode() + b"\n")
        except (CannotWrite, BrokenPipeError) as error:
            await backend.revoke_token(made)
            raise TenantbaseError(
                f"the token could not be printed, and is revoked: {error}"
            ) from error

    # An absent database has no tenant but default.
    run(replace(config, tenant=None), work, create=tenant in (None, DEFAULT.tenant))


@command("list", *WHERE)
def list_(config: Config) -> None:
    """Print all tokens, but not their secrets, in the order of their creation."""
    tokens = run(config, lambda backend: backend.tokens(), read_only=True)
    print_records([msgspec.structs.asdict(each) for each in tokens], _COLUMNS)


@command("revoke", *WHERE)
@click.argument("id")
def revoke(config: Config, id: str) -> None:
    """Revoke the token with this ID, which list prints. Within a second, no server accepts it."""

    async def work(backend: Backend) -> None:
        with suppress(Damaged):  # a damaged token cannot be listed, but revoked
            if id not in [each.id for each in await backend.tokens()]:
                # Not repeated: it may be the token itself.
                raise TenantbaseError("there is no token with this id; token list prints the ids")
        await backend.revoke_token(id)

    run(config, work)


@command("disable", *WHERE)
@click.option("--yes", is_flag=True, help="Do not ask at a terminal.")
def disable(config: Config, yes: bool) -> None:
    """Remove all tokens and open the database to everyone. At a terminal, asks first.

    Only on the database itself. A server that other machines can reach then refuses every request,
    unless it was started with --insecure.
    """
    if config.url is not None:
        raise ConfigError(
            "--url: tokens can only be disabled on the database itself, with --database"
        )
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm("Remove all tokens and let everyone in?", abort=True, err=True)

    from tenantbase.process.wiring import open_database

    async def work() -> None:
        async with open_database(config, create=False) as database:
            await database.disable_tokens()

    asyncio.run(work())


def _scope(text: str) -> TokenScope:
    if text not in _SCOPES:  # it was prompted for
        raise TenantbaseError(f"SCOPE is one of {', '.join(_SCOPES)}")
    return TokenScope(text)


_COMMANDS: Final[tuple[Command, ...]] = (create, list_, revoke, disable)
for _command in _COMMANDS:
    token.add_command(_command)
