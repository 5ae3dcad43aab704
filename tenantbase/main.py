"""The command ``tenantbase``: the list of its commands, which are in ``cli/commands``.

Commands import slow modules inside their functions: ``tenantbase get`` finishes in less time than
importing aiohttp takes.
"""

from __future__ import annotations

import click

from tenantbase import __version__
from tenantbase.cli.arguments import Group
from tenantbase.cli.commands.import_export import export, import_
from tenantbase.cli.commands.maintenance import backup, check, compact, restore
from tenantbase.cli.commands.migrate import migrate
from tenantbase.cli.commands.serve import serve
from tenantbase.cli.commands.stats import stats
from tenantbase.cli.commands.tenants import tenant
from tenantbase.cli.commands.tokens import token
from tenantbase.cli.commands.values import count, delete, get, list_, set_, touch


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tenantbase %(version)s")
def main() -> None:
    """A key-value service: durable in SQLite, fast through memcached, never stale.

    Every option is also an environment variable: --cache-timeout is TENANTBASE_CACHE_TIMEOUT.
    Options that may be repeated take a comma-separated list there. The command line wins.
    """


for command in (
    *(serve, set_, get, delete, touch, list_, count, import_, export),
    *(backup, restore, check, compact, migrate, stats, tenant, token),
):
    main.add_command(command)
