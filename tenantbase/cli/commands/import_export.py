"""``tenantbase import`` and ``export``: a whole database, or a prefix of it, as lines of JSON."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

import click

from tenantbase.cli.backend import OPENED
from tenantbase.cli.completion import complete
from tenantbase.cli.input import input_from
from tenantbase.cli.options import command
from tenantbase.cli.output import Output, output_to
from tenantbase.cli.progress import progress
from tenantbase.entry import check_text
from tenantbase.errors import CannotWrite
from tenantbase.process.config import Config


@command("import", *OPENED, "tenant", "max_value_bytes")
@click.argument("file", default="-", shell_complete=complete)
def import_(config: Config, file: str) -> None:
    """Store the entries in FILE, or standard input: JSON, one entry a line.

    A line has "key" and "value" and may have the other fields that /set-value takes, except
    conditions. Stops at the first line that cannot be stored; the lines before it are stored.
    """
    from tenantbase.cli.local import scope_of
    from tenantbase.cli.transfer import import_lines
    from tenantbase.process.wiring import open_database

    async def work(source: BinaryIO) -> None:
        async with open_database(config) as database:
            scope = await scope_of(database, config.tenant)
            with progress() as count_up:
                async for lines in import_lines(database, scope, source):
                    count_up.update(lines)

    with input_from(file) as source:
        asyncio.run(work(source))


@command("export", *OPENED, "tenant")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys with this prefix.")
@click.argument("file", default="-", shell_complete=complete)
def export(config: Config, prefix: str, file: str) -> None:
    """Write all entries of the tenant to FILE, or standard output: JSON, one entry a line.

    FILE is replaced once everything is written. Until then, and if the export fails, it stays as
    it was.
    """
    from tenantbase.cli.local import scope_of
    from tenantbase.cli.transfer import export_lines
    from tenantbase.process.wiring import files_of, open_to_read

    check_text(prefix, "prefix")
    database = config.database
    if isinstance(database, Path) and Path(os.path.realpath(file)) in files_of(database):
        raise CannotWrite(f"cannot write to {file}: it is a file of the database")

    async def work(output: Output) -> None:
        async with open_to_read(config) as database:
            scope = await scope_of(database, config.tenant)
            with progress() as count_up:
                async for lines, count in export_lines(database, scope, prefix):
                    await output.send(lines)
                    count_up.update(count)

    with output_to(file) as output:
        asyncio.run(work(output))
