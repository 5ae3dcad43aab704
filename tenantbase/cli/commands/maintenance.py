"""``tenantbase backup``, ``restore``, ``check`` and ``compact``: care of a database file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tenantbase.cli.completion import complete
from tenantbase.cli.input import input_from
from tenantbase.cli.options import command
from tenantbase.cli.output import output_to
from tenantbase.cli.progress import progress
from tenantbase.errors import CannotOpen, CannotWrite, TenantbaseError
from tenantbase.process.config import Config


@command("backup", "database", "write_timeout")
@click.argument("file", shell_complete=complete)
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
    if Path(os.path.realpath(file)) in files_of(config.file):
        raise CannotWrite(f"cannot write to {file}: it is a file of the database")
    if in_use := companions_in_use(Path(file)):
        raise CannotWrite(f"cannot write to {file}: it is a database in use, as {in_use} shows")
    with output_to(file, replace=force, private=True) as output, progress() as bar:
        if output.path is None:
            copied = back_up_to_stream(config, output.write, bar.update)
        else:
            copied = back_up(config, output.path, output.file, bar.update)
    if copied.left_out:
        click.echo(
            f"left out, because no request can name them: {copied.left_out:,} with keys that are not"
            " UTF-8 text",
            err=True,
        )


@command("restore", "database")
@click.argument("file", shell_complete=complete)
@click.option("--force", is_flag=True, help="Replace the database if it exists.")
@click.option(
    "--without-checksum",
    is_flag=True,
    help="Accept a copy without a checksum, such as one made with another tool.",
)
def restore(config: Config, file: str, force: bool, without_checksum: bool) -> None:
    """Verify the copy in FILE, or standard input for a dash, and make it the database.

    No server may have the database open. Versions continue far above all that were given out, so
    that no condition and no cached item of the time after the copy ever fits again.
    """
    from tenantbase.process.maintenance import restore as restore_database
    from tenantbase.process.wiring import companions_in_use, files_of

    if file != "-":
        if Path(os.path.realpath(file)) in files_of(config.file):
            raise CannotOpen(f"cannot restore {file}: it is a file of the database itself")
        if in_use := companions_in_use(Path(file)):
            raise CannotOpen(f"cannot restore {file}: it is a database in use, as {in_use} shows")
    findings: list[str] = []
    with input_from(file) as source, progress() as bar:
        restored = restore_database(
            config,
            "standard input" if file == "-" else file,
            source,
            force=force,
            required=not without_checksum,
            report=findings.append,
            tell=bar.update,
        )
    for finding in findings:
        click.echo(f"in the copy: {finding}", err=True)
    if restored.kept is not None:
        click.echo(f"The database that was replaced is kept as {restored.kept}.", err=True)
    click.echo(f"restored {restored.entries:,} entries; versions continue above {restored.version}")


@command("check", "database", "write_timeout")
def check(config: Config) -> None:
    """Check the integrity of the database, also while servers write to it.

    Says which keys are concerned. The exit status is 1 if anything is wrong.
    """
    from tenantbase.process.maintenance import check as check_database
    from tenantbase.process.maintenance import things_wrong

    with progress() as bar:
        checked = check_database(config, click.echo, bar.update)
    if checked.findings:
        raise TenantbaseError(
            f"{config.database}: {things_wrong(checked.findings)} ({checked.rows:,} entries checked)"
        )
    deleted = (
        f", and {checked.deleted:,} deleted ones that are yet to be removed"
        if checked.deleted
        else ""
    )
    click.echo(f"ok: {max(checked.rows - checked.deleted, 0):,} entries{deleted}")


@command("compact", "database", "write_timeout")
def compact(config: Config) -> None:
    """Give the space of deleted entries back to the file system.

    Beside servers, it works in small steps that hold no request up for long. Without any, the file
    is written again, which needs room for a second one.
    """
    from tenantbase.process.maintenance import compact as compact_database

    with progress("pages") as bar:
        freed = compact_database(config, bar.update)
    click.echo(f"freed {max(freed, 0):,} bytes")
