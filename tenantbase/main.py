"""The command line.

Whatever takes long to import is imported by the commands that need it: ``tenantbase get`` is done
before aiohttp would be there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, TypeVar

import click
import msgspec

from tenantbase import __version__
from tenantbase.cli.arguments import Group, as_given
from tenantbase.process.config import OPTIONS, Config
from tenantbase.entry import JSON, OCTETS, check_key, check_text, expiry, is_json
from tenantbase.errors import CannotWrite, ConfigError, InvalidRequest, TenantbaseError
from tenantbase.cli.input import input_from, read_standard_input
from tenantbase.json_text import NotJson, check_json
from tenantbase.cli.output import output_to, standard_output
from tenantbase.process.startup import end_on

if TYPE_CHECKING:
    from tqdm import tqdm

    from tenantbase.cli.local import LocalBackend
    from tenantbase.cli.output import Output
    from tenantbase.cli.reading import Entries
    from tenantbase.cli.http import HttpBackend

log = logging.getLogger("tenantbase")

Result = TypeVar("Result")

_DATA: Final = ("database", "url", "tls_ca", "write_timeout")
_JSON_SPACE: Final = b" \t\r\n"
_SERVE: Final = tuple(option.name for option in OPTIONS if option.name not in ("url", "tls_ca"))


class _Misused(click.ClickException):
    exit_code = 2


def _configured(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options; it gets a Config, and its errors become one line each."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            stated = {name: given.pop(name) for name in names}
            try:
                config = Config.load(stated, os.environ)
                if "log_level" not in names:  # a command without a log
                    for line in config.ignored:
                        click.echo(f"Warning: {line}", err=True)
                command(config, **given)
            except ConfigError as error:
                raise _Misused(str(error).replace("\n", "\nError: ")) from error
            except TenantbaseError as error:
                raise click.ClickException(str(error)) from error

        for option in reversed(OPTIONS):
            if option.name in names:
                default = f"  [{option.default}]" if option.default else ""
                run = click.option(
                    option.flag,
                    option.name,
                    is_flag=option.switch,
                    multiple=option.many,
                    metavar=option.metavar or None,
                    help=option.help + default,
                )(run)
        return run

    return decorate


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tenantbase %(version)s")
def main() -> None:
    """A key-value service: durable in SQLite, fast through memcached, never stale.

    Every option is also an environment variable: --cache-timeout is TENANTBASE_CACHE_TIMEOUT.
    What may be given many times is separated by commas there. The command line wins.
    """


@main.command()
@_configured(*_SERVE)
def serve(config: Config) -> None:
    """Serve over HTTP until SIGTERM or SIGINT; requests under way are finished.

    Prints one line, "listening on URL", once it can serve.
    """
    # Until the supervisor takes over. The terminal may go: nothing here needs it.
    end_on(0, signal.SIGTERM, signal.SIGINT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from tenantbase.process import supervisor
    from tenantbase.web.transport.descriptors import raise_descriptor_limit
    from tenantbase.process.sockets import listening, url_of
    from tenantbase.process.tls import certificates_of
    from tenantbase.process.wiring import start_memcached

    logging.basicConfig(
        level=config.log_level.upper(),
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    raise_descriptor_limit()
    for line in config.ignored:
        log.warning("%s", line)
    certificates = certificates_of(config)
    with listening(config.host, config.port) as sockets, start_memcached(config) as memcached:
        url = url_of(config.host, sockets, "http" if certificates is None else "https")
        announce = functools.partial(_announce, url)
        sys.exit(supervisor.run(config, sockets, memcached, announce, certificates))


def _announce(url: str) -> None:
    with suppress(OSError):  # whoever started the server may have closed our output
        print(f"listening on {url}", flush=True)


@main.command("set")
@_configured(*_DATA, "max_value_bytes")
@click.argument("key", required=False, callback=as_given)
@click.argument("value", required=False, callback=as_given)
@click.option("--text", is_flag=True, help="Store VALUE as a string, even if it is JSON.")
@click.option("--ttl", type=float, metavar="SECONDS", help="Let it expire after so many seconds.")
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Only if that is its version."
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
    """Store VALUE at KEY; asks for what is missing.

    VALUE is JSON; what is no JSON is stored as a string, and what is no UTF-8 as it is. JSON that
    the server would refuse is refused here; --text stores it as a string. A dash stands for
    standard input. Prints what the server would answer. If that cannot be printed the value is
    stored nevertheless: a line on standard error says so, and the exit status is 0.
    """
    expiry(0, ttl, None)
    key = check_key(_asked("Key", key))
    value = _asked("Value", value)
    data = read_standard_input() if value == "-" else os.fsencode(value)
    stored, content_type = _as_value(data, text)

    async def work(entries: LocalBackend | HttpBackend) -> bytes:
        return await entries.set(
            key, stored, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
        )

    answer = _run(config, work, create=True)
    try:
        with suppress(BrokenPipeError), standard_output() as output:
            output.write(answer + b"\n")
    except CannotWrite as error:
        # The exit status says whether the value is stored; who took a lock so must know.
        click.echo(f"The value is stored, but this could not be said: {error}", err=True)


@main.command()
@_configured(*_DATA)
@click.argument("key", required=False, callback=as_given)
def get(config: Config, key: str | None) -> None:
    """Print the value of KEY; asks for it if it is missing.

    JSON is followed by the end of a line; other values are written as they are. Exit status 1: there
    is no such key.
    """
    key = check_key(_asked("Key", key))
    found = _run(config, lambda entries: entries.get(key), reads=True)
    if found is None:
        raise TenantbaseError(f"there is no key {key!r}")
    value, content_type = found
    with standard_output() as output:
        output.write(value + b"\n" if is_json(content_type) else value)


@main.command()
@_configured(*_DATA)
@click.argument("key", required=False, callback=as_given)
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Only if that is its version."
)
def delete(config: Config, key: str | None, if_version: int | None) -> None:
    """Delete KEY; asks for it if it is missing. Deleting an absent key is no error."""
    key = check_key(_asked("Key", key))
    _run(config, lambda entries: entries.delete(key, if_version=if_version))


@main.command("list")
@_configured(*_DATA)
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin so.")
@click.option("--limit", type=click.IntRange(1, 10_000), metavar="N", help="At most so many.")
def list_(config: Config, prefix: str, limit: int | None) -> None:
    """Print entries, one a line, as JSON, in the byte order of their keys."""
    check_text(prefix, "prefix")

    async def work(entries: LocalBackend | HttpBackend) -> None:
        async with aclosing(entries.lines(prefix, limit)) as pieces:
            async for piece in pieces:
                await output.send(piece)

    with standard_output() as output:
        _run(config, work, reads=True)


@main.command("import")
@_configured("database", "max_value_bytes", "write_timeout")
@click.argument("file", default="-")
def import_(config: Config, file: str) -> None:
    """Store the entries in FILE, or standard input: JSON, one entry a line.

    A line has "key" and "value", and may have whatever else /set-value takes, but no conditions.
    Stops at the first line that cannot be stored; those before it are.
    """
    from tenantbase.cli.transfer import import_lines
    from tenantbase.process.wiring import open_cache

    async def work(source: BinaryIO) -> None:
        async with open_cache(config) as cache:
            with _progress() as progress:
                async for lines in import_lines(cache, source, config.max_value_bytes):
                    progress.update(lines)

    with input_from(file) as source:
        asyncio.run(work(source))


@main.command("export")
@_configured("database", "write_timeout")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin so.")
@click.argument("file", default="-")
def export(config: Config, prefix: str, file: str) -> None:
    """Write all entries to FILE, or standard output: JSON, one entry a line.

    FILE is replaced when all of it is written; until then, and if that fails, it is what it was.
    """
    from tenantbase.cli.transfer import export_lines
    from tenantbase.process.wiring import files_of, open_to_read

    check_text(prefix, "prefix")
    if Path(os.path.realpath(file)) in files_of(config.database):
        raise CannotWrite(f"cannot write to {file}: it is a file of the database")

    async def work(output: Output) -> None:
        async with open_to_read(config) as entries:
            with _progress() as progress:
                async for lines, count in export_lines(entries, prefix):
                    await output.send(lines)
                    progress.update(count)

    with output_to(file) as output:
        asyncio.run(work(output))


def _progress() -> tqdm[NoReturn]:
    """A count of entries on standard error, if that is a terminal."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread to watch the count: each batch updates it
    return tqdm(unit=" entries", unit_scale=True, disable=None)


def _run(
    config: Config,
    work: Callable[[LocalBackend | HttpBackend], Awaitable[Result]],
    *,
    create: bool = False,
    reads: bool = False,
) -> Result:
    """Do something with the entries of the database, or of the server at ``--url``."""

    async def session() -> Result:
        async with _entries(config, create, reads) as entries:
            return await work(entries)

    return asyncio.run(session())


@asynccontextmanager
async def _entries(
    config: Config, create: bool, reads: bool
) -> AsyncIterator[LocalBackend | HttpBackend]:
    if config.url is not None:
        from tenantbase.cli.http import open_http_backend

        async with open_http_backend(config.url, config.tls_ca) as remote:
            yield remote
    else:
        from tenantbase.cli.local import LocalBackend
        from tenantbase.process.wiring import open_cache, open_to_read

        opened: AbstractAsyncContextManager[Entries]
        opened = open_to_read(config) if reads else open_cache(config, create=create)
        async with opened as cache:
            yield LocalBackend(cache, config.max_value_bytes)


def _asked(name: str, given: str | None) -> str:
    """What was given, or what is answered to a question on standard error."""
    if given is not None:
        return given
    try:
        answer: str = click.prompt(name, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # ends the line of the question
        raise TenantbaseError(f"{name.upper()} is missing") from None
    return answer


def _as_value(data: bytes, text: bool) -> tuple[bytes, str]:
    """The bytes to be stored, and their media type."""
    try:
        string = data.decode()
    except UnicodeDecodeError as error:
        if text:
            raise TenantbaseError("the value is no UTF-8 text") from error
        return data, OCTETS
    if not text:
        try:
            check_json(data, "VALUE")
            return data.strip(_JSON_SPACE), JSON
        except NotJson:
            pass
        except InvalidRequest as error:
            detail = f"{error.detail}; with --text it is stored as a string"
            raise InvalidRequest(detail, "VALUE") from error
    return msgspec.json.encode(string), JSON
