"""``tenantbase backup``, ``restore``, ``check`` and ``compact``: care of a database file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tenantbase.cli.options import command
from tenantbase.cli.output import output_to
from tenantbase.cli.progress import progress
from tenantbase.errors import CannotWrite
from tenantbase.process.config import Config


@command("backup", "database", "write_timeout")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def backup(config: Config, file: str, force: bool) -> None:
    """Copy the database to FILE, or to standard output for a dash, while servers write to it.

    The copy is the database at one version. It ends with a checksum, which restore verifies, and
    can be opened as a database itself. FILE appears once everything is written.
    """
    from tenantbase.process.maintenance import back_up, back_up_to_stream
    from tenantbase.process.wiring import companions_in_use, files_of

    if file == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise CannotWrite("standard output is a terminal; send the copy to a file or a pipe")
    if Path(os.path.realpath(file)) in files_of(config.database):
        raise CannotWrite(f"cannot write to {file}: it is a file of the database")
    if in_use := companions_in_use(Path(file)):
        raise CannotWrite(f"cannot write to {file}: it is a database in use, as {in_use} shows")
    with output_to(file, replace=force, private=True) as output, progress() as bar:
        if output.path is None:
            back_up_to_stream(config, output.write, bar.update)
        else:
            back_up(config, output.path, output.file, bar.update)
