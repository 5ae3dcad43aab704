"""``tenantbase set``, ``get``, ``delete``, ``touch``, ``list`` and ``count``.

They work on a database file, or with --url on a server.
"""

from __future__ import annotations

import os
from contextlib import aclosing, suppress
from typing import Final

import click
import msgspec

from tenantbase.cli.arguments import as_given
from tenantbase.cli.backend import WHERE, Backend, run
from tenantbase.cli.input import given_or_prompted, read_standard_input
from tenantbase.cli.options import command
from tenantbase.cli.output import standard_output
from tenantbase.entry import JSON, OCTETS, check_key, check_text, expiry, is_json
from tenantbase.errors import CannotWrite, InvalidRequest, TenantbaseError
from tenantbase.json_text import NotJson, check_json
from tenantbase.listing import KeyRange
from tenantbase.process.config import Config

_OPTIONS: Final = (*WHERE, "tenant")
_JSON_SPACE: Final = b" \t\r\n"


@command("set", *_OPTIONS, "max_value_bytes")
@click.argument("key", required=False, callback=as_given)
@click.argument("value", required=False, callback=as_given)
@click.option("--text", is_flag=True, help="Store VALUE as a string, even if it is JSON.")
@click.option("--ttl", type=float, metavar="SECONDS", help="Expire after this many seconds.")
@click.option("--if-absent", is_flag=True, help="Only if the key does not exist.")
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Only if this is its version."
)
def set_(
    config: Config,
    key: str | None,
    value: str | None,
    text: bool,
    ttl: float | None,
    if_absent: bool,
    if_version: int | None,
) -> None:
    """Store VALUE at KEY, prompting for whichever is missing.

    VALUE is stored as JSON if it is JSON, as a string if it is other text, and byte for byte if it
    is not UTF-8. JSON that the server would refuse is refused here too; --text stores it as a
    string. A dash reads VALUE from standard input. Prints the server's answer. If the answer cannot
    be printed, the value is still stored: a line on standard error says so, and the exit status is
    0.
    """
    expiry(0, ttl, None)
    key = check_key(given_or_prompted("Key", key))
    value = given_or_prompted("Value", value)
    data = read_standard_input() if value == "-" else os.fsencode(value)
    stored, content_type = _as_value(data, text)

    async def work(backend: Backend) -> bytes:
        return await backend.set(
            key, stored, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
        )

    answer = run(config, work, create=True)
    try:
        with suppress(BrokenPipeError), standard_output() as output:
            output.write(answer + b"\n")
    except CannotWrite as error:
        # The exit status says whether the value is stored: a script that takes a lock relies on it.
        click.echo(f"The value is stored, but the answer could not be printed: {error}", err=True)


@command("get", *_OPTIONS)
@click.argument("key", required=False, callback=as_given)
@click.option("--raw", is_flag=True, help="Write the value byte for byte, without a newline.")
def get(config: Config, key: str | None, raw: bool) -> None:
    """Print the value of KEY, prompting for it if it is missing.

    Adds a newline to JSON and writes other values as they are. The exit status is 1 if the key does
    not exist.
    """
    key = check_key(given_or_prompted("Key", key))
    found = run(config, lambda backend: backend.get(key), read_only=True)
    if found is None:
        raise TenantbaseError(f"there is no key {key!r}")
    value, content_type = found
    with standard_output() as output:
        output.write(value + b"\n" if is_json(content_type) and not raw else value)


@command("delete", *_OPTIONS)
@click.argument("key", required=False, callback=as_given)
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Only if this is its version."
)
def delete(config: Config, key: str | None, if_version: int | None) -> None:
    """Delete KEY, prompting for it if it is missing. Deleting an absent key is not an error."""
    key = check_key(given_or_prompted("Key", key))
    run(config, lambda backend: backend.delete(key, if_version=if_version))


@command("touch", *_OPTIONS)
@click.argument("key", required=False, callback=as_given)
@click.option("--ttl", type=float, metavar="SECONDS", help="Expire after this many seconds.")
@click.option("--never", is_flag=True, help="Do not expire.")
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Only if this is its version."
)
def touch(
    config: Config, key: str | None, ttl: float | None, never: bool, if_version: int | None
) -> None:
    """Change when KEY expires, and nothing else, prompting for it if it is missing.

    Prints the server's answer. The exit status is 1 if the key does not exist.
    """
    if never == (ttl is not None):
        raise click.UsageError("give either --ttl or --never")
    expiry(0, ttl, None)
    key = check_key(given_or_prompted("Key", key))
    answer = run(config, lambda backend: backend.touch(key, ttl=ttl, if_version=if_version))
    with standard_output() as output:
        output.write(answer + b"\n")


@command("count", *_OPTIONS)
@click.option("--prefix", default="", metavar="TEXT", help="Only keys with this prefix.")
def count(config: Config, prefix: str) -> None:
    """Print how many entries there are, and the bytes of their keys and values."""
    check_text(prefix, "prefix")
    entries, size = run(config, lambda backend: backend.count(prefix), read_only=True)
    with standard_output() as output:
        output.write(b"%d entries, %d bytes\n" % (entries, size))


@command("list", *_OPTIONS)
@click.option("--prefix", default="", metavar="TEXT", help="Only keys with this prefix.")
@click.option("--start", default="", metavar="KEY", help="Only this key and those after it.")
@click.option("--end", default="", metavar="KEY", help="Only keys before this one.")
@click.option("--reverse", is_flag=True, help="In descending order.")
@click.option("--limit", type=click.IntRange(1, 10_000), metavar="N", help="At most this many.")
def list_(
    config: Config, prefix: str, start: str, end: str, reverse: bool, limit: int | None
) -> None:
    """Print entries as JSON, one a line, in byte order of keys."""
    wanted = KeyRange(
        check_text(prefix, "prefix"), check_text(start, "start"), check_text(end, "end"), reverse
    )

    async def work(backend: Backend) -> None:
        async with aclosing(backend.lines(wanted, limit)) as pieces:
            async for piece in pieces:
                await output.send(piece)

    with standard_output() as output:
        run(config, work, read_only=True)


def _as_value(data: bytes, text: bool) -> tuple[bytes, str]:
    """The bytes to store, and their media type."""
    try:
        string = data.decode()
    except UnicodeDecodeError as error:
        if text:
            raise TenantbaseError("the value is not UTF-8 text") from error
        return data, OCTETS
    if not text:
        try:
            check_json(data, "VALUE")
            return data.strip(_JSON_SPACE), JSON
        except NotJson:
            pass
        except InvalidRequest as error:
            detail = f"{error.detail}; --text stores it as a string"
            raise InvalidRequest(detail, "VALUE") from error
    return msgspec.json.encode(string), JSON
