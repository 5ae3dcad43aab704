"""``tenantbase migrate``: from a database file to PostgreSQL, and back."""

from __future__ import annotations

import click

from tenantbase.cli.completion import complete
from tenantbase.cli.options import command
from tenantbase.cli.progress import progress
from tenantbase.process.config import Config


@command("migrate", "write_timeout", "store_timeout", "store_unreplicated")
@click.option(
    *("--from", "source"),
    required=True,
    metavar="FILE|URL",
    help="The old database.",
    shell_complete=complete,
)
@click.option(
    *("--to", "target"),
    required=True,
    metavar="FILE|URL",
    help="The new database.",
    shell_complete=complete,
)
@click.option("--finish", "last", is_flag=True, help="Finish, once no server uses the old one.")
def migrate(config: Config, source: str, target: str, last: bool) -> None:
    """Move the database from a file to PostgreSQL (postgresql://USER@HOST/DATABASE), or back.

    Versions, ids, expiry, tenants and tokens stay as they are. First, everything is copied while
    servers use the old database; run it as often as you like, it goes on where it was. Then stop the
    servers, and run it with --finish: it copies the last changes, compares all entries and makes the
    new database available. The old one is not changed.

    PostgreSQL must be as for `serve`: with one synchronous standby, unless --store-unreplicated is
    given. If its primary fails, the move continues with the next one.
    """
    from tenantbase.process.migration import finish, follow, place_of

    old, new = place_of(source, "--from"), place_of(target, "--to")
    if not last:
        with progress() as bar:
            version = follow(config, old, new, bar.update, _warn)
        click.echo(
            f"copied up to version {version:,}; stop the servers, and run it again with --finish"
        )
        return
    with progress() as bar:
        moved = finish(config, old, new, bar.update, _warn)
    click.echo(
        f"moved {moved.entries:,} entries, all compared, checksum {moved.checksum};"
        f" versions continue above {moved.version:,}"
    )


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)
