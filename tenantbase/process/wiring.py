"""The one place that names the concrete interfaces and puts the parts together."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from tenantbase import __version__
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import CACHED_BYTES, OVERHEAD_BYTES, ItemSealer
from tenantbase.coherence.shared import shared_cache
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.database import Database, Limits, Reader
from tenantbase.errors import CannotOpen
from tenantbase.figures import private_cells
from tenantbase.interfaces.cache import Memcache
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.sqlite.file import check_file, located
from tenantbase.interfaces.sqlite.foreign import check_companions_kind, check_ours
from tenantbase.interfaces.sqlite.open_read_only import may_write
from tenantbase.interfaces.sqlite.read_only import reading
from tenantbase.interfaces.sqlite.reserve import Reserve
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.tracing import Tracer
from tenantbase.owned_files import is_marked
from tenantbase.process import logs
from tenantbase.process.config import HEARTBEAT_SECONDS, MAX_BATCH_ENTRIES, Config
from tenantbase.process.exit_timer import ExitTimer
from tenantbase.process.tracebacks import summary
from tenantbase.scope import tenant_of

log = logging.getLogger("tenantbase")

# Log a message when opening has waited this long. It may wait up to 2 s for a foreign tool's lock
# before.
_WAIT_WARNING_SECONDS: Final = 3.0
_DEFAULT_ITEM_BYTES: Final = 1 << 20  # memcached's own default for the largest item


class Memcached(msgspec.Struct, frozen=True):
    """The memcached to use, one server or several.

    Attributes:
        addresses: where each server listens.
        max_item_bytes: the largest item that every server takes.
        messages: a pipe that becomes readable when a private memcached has a message.
        log_messages: logs the messages; returns False if no more can come.
    """

    addresses: Sequence[MemcacheAddress]
    max_item_bytes: int
    messages: int | None = None
    log_messages: Callable[[], bool] = lambda: False


def reporter_of(config: Config) -> logging.Handler:
    """A log handler that reports errors to Sentry, as ``SENTRY_DSN`` says. It starts a thread.

    Raises:
        ImportError: the library is not installed.
        ValueError: ``SENTRY_DSN`` is not valid.
    """
    from tenantbase.interfaces.sentry.reporter import Reporter

    return Reporter(config.sentry_dsn or "", f"tenantbase@{__version__}", summary)


@contextmanager
def reporting(config: Config) -> Iterator[None]:
    """Report errors in the log to Sentry inside the block, if ``SENTRY_DSN`` is set.

    To be used in workers only: it starts a thread, and the supervisor must not have any
    (``reports.py``).
    """
    reporter = None
    if config.sentry_dsn is not None:
        try:
            reporter = reporter_of(config)
        except ImportError:
            log.warning(
                "SENTRY_DSN is set, but errors are not reported: install tenantbase[sentry]"
            )
        except ValueError:
            log.warning("SENTRY_DSN is not valid, so errors are not reported")
    if reporter is None:
        yield
        return
    with logs.reporter(reporter):
        yield


@contextmanager
def tracing(config: Config) -> Iterator[Tracer | None]:
    """The tracer, if OpenTelemetry's variables ask for traces; otherwise None. In workers only."""
    tracer = None
    if config.traces:
        try:
            from tenantbase.interfaces.otel.tracer import OtelTracer

            tracer = OtelTracer(__version__)
        except ImportError:
            log.warning(
                "OTEL_ variables ask for traces, but there are none: install tenantbase[otel]"
            )
    try:
        yield tracer
    finally:
        if tracer is not None:
            tracer.close()


@contextmanager
def start_memcached(config: Config) -> Iterator[Memcached | None]:
    """The memcached that ``--memcached`` names; a private one runs for as long as the block.

    Needs no event loop. Yields None if there is none to use; the log says why.
    """
    if config.memcached == "off":
        yield None
    elif isinstance(config.memcached, tuple):
        yield Memcached(config.memcached, _DEFAULT_ITEM_BYTES)
    else:
        from tenantbase.interfaces.memcached.private import PrivateMemcached

        private = PrivateMemcached.start(
            config.memcached_memory,
            max(_DEFAULT_ITEM_BYTES, min(config.max_value_bytes, CACHED_BYTES) + OVERHEAD_BYTES),
        )
        if private is None:
            yield None
        else:
            with private:
                yield Memcached(
                    [private.address],
                    private.max_item_bytes,
                    private.messages,
                    private.log_messages,
                )


@asynccontextmanager
async def open_cache(
    config: Config,
    memcached: Memcached | None = None,
    *,
    create: bool = True,
    figures: memoryview | None = None,
) -> AsyncIterator[Cache]:
    """Open the database and everything that belongs to it; at the end, close it in reverse order.

    Args:
        memcached: None for no cache. Writes stay coherent with other processes' caches even then,
            because all share the tag file, or the server.
        create: create the database file if it does not exist. Tables on a server always are.
        figures: the worker's cells (``figures.py``); None: private ones.

    Raises:
        StoreError: it cannot be opened. Nothing is left open.
    """
    figures = private_cells() if figures is None else figures
    if isinstance(config.database, Path):
        opened = _open_file(config, config.database, memcached, create, figures)
    else:
        opened = _open_shared(config, config.database, memcached, figures)
    async with opened as cache:
        yield cache


@asynccontextmanager
async def _open_shared(
    config: Config, address: DatabaseAddress, memcached: Memcached | None, figures: memoryview
) -> AsyncIterator[Cache]:
    """Every process that opens it is a node of its own."""
    try:
        from tenantbase.interfaces.postgres.confirmation import Confirm
        from tenantbase.interfaces.postgres.store import PostgresStore
    except ImportError as error:
        raise CannotOpen(f"the {address} needs asyncpg: install tenantbase[postgres]") from error
    last_resort = ExitTimer(
        config.write_timeout + config.store_timeout,
        f"the {address} was not closed in time; it does not answer",
    )
    async with AsyncExitStack() as stack:
        stack.callback(last_resort.cancel)
        store = await PostgresStore.open(
            address,
            confirm=Confirm(config.store_confirm),
            replicated=not config.store_unreplicated,
            timeout=config.store_timeout,
            write_timeout=config.write_timeout,
            read_timeout=config.read_timeout,
            figures=figures,
        )
        stack.push_async_callback(store.close)
        memcache = await _connect(stack, memcached, config.cache_timeout, figures)
        cache = shared_cache(store, memcache, **_settings(config, memcached, figures))
        stack.push_async_callback(cache.drained)
        await cache.poll()  # learns what has changed, which may take longer than a read should wait
        try:
            yield cache
        finally:
            last_resort.start()


def _settings(config: Config, memcached: Memcached | None, figures: memoryview) -> dict[str, Any]:
    """The settings of ``Cache``, whichever the database."""
    return {
        "max_item_bytes": memcached.max_item_bytes if memcached else _DEFAULT_ITEM_BYTES,
        "write_timeout": config.write_timeout,
        "read_timeout": config.read_timeout,
        "lane_of": tenant_of,  # each tenant is a lane of its own
        "figures": figures,
    }


@asynccontextmanager
async def _open_file(
    config: Config, database: Path, memcached: Memcached | None, create: bool, figures: memoryview
) -> AsyncIterator[Cache]:
    # SQLite follows symbolic links, so the files beside the database go beside its real path.
    path = located(database)
    if not (create or path.exists()):
        raise CannotOpen(f"there is no database {database}")
    if not path.parent.is_dir():
        raise CannotOpen(f"there is no directory {path.parent} for the database")
    look_before_touching(path)
    last_resort = ExitTimer(
        config.write_timeout,
        f"{database} was not closed in {config.write_timeout:g} s;"
        " another process may be holding its write lock",
    )
    async with AsyncExitStack() as stack:
        stack.callback(last_resort.cancel)
        tags = open_tags(path)
        lock_path = Path(f"{path}-lock")
        stack.callback(tags.close, lock_path)
        lock = WriteLock(lock_path, like=path)
        stack.callback(lock.close)
        waiting = asyncio.get_running_loop().call_later(
            _WAIT_WARNING_SECONDS,
            log.warning,
            "another process holds the write lock of %s; waiting",
            path,
        )
        stack.callback(waiting.cancel)
        await lock.take(config.write_timeout)
        waiting.cancel()
        store = await SqliteStore.open(
            path,
            lock.held,
            mark=tags,
            read_timeout=config.read_timeout,
            lane_of=tenant_of,
            figures=figures,
        )
        stack.push_async_callback(store.close)
        sealer = ItemSealer(store.secret)
        memcache = await _connect(stack, memcached, config.cache_timeout, figures)
        # With memcached, the key's slot is needed for the new item, too.
        bucket = sealer.bucket if memcache is None else (lambda key: sealer.slot(key).bucket)
        seqlock = TagSeqlock(tags, lock, bucket)
        cache = Cache(
            store,
            tags,
            lambda group, now: store.write(group, now, seqlock),
            sealer,
            memcache,
            clock=time.time,
            **_settings(config, memcached, figures),
        )
        stack.push_async_callback(cache.drained)
        try:
            yield cache
        finally:
            last_resort.start()


async def _connect(
    stack: AsyncExitStack, memcached: Memcached | None, timeout: float, figures: memoryview
) -> Memcache | None:
    """The clients of memcached, which the stack closes. No server needs to answer yet."""
    if memcached is None:
        return None
    from tenantbase.interfaces.memcached.client import MemcacheClient
    from tenantbase.interfaces.memcached.protocol import KEPT_BYTES
    from tenantbase.interfaces.memcached.ring import MemcacheRing

    # The answers of all servers are kept at the same time, so each gets its share of the memory.
    kept = KEPT_BYTES // len(memcached.addresses)
    servers: dict[str, Memcache] = {}
    for address in memcached.addresses:
        client = MemcacheClient(address, timeout=timeout, kept_bytes=kept)
        servers[str(address)] = await stack.enter_async_context(client)
    return MemcacheRing(servers, figures) if len(servers) > 1 else client


@asynccontextmanager
async def open_database(
    config: Config,
    memcached: Memcached | None = None,
    *,
    create: bool = True,
    figures: memoryview | None = None,
) -> AsyncIterator[Database]:
    """The service over what ``open_cache`` opens. Arguments and errors are the same."""
    async with open_cache(config, memcached, create=create, figures=figures) as cache:
        yield Database(cache, limits_of(config), heartbeat=HEARTBEAT_SECONDS)


def limits_of(config: Config) -> Limits:
    """The limits of operations."""
    return Limits(max_value_bytes=config.max_value_bytes, max_batch_entries=MAX_BATCH_ENTRIES)


@asynccontextmanager
async def open_to_read(config: Config) -> AsyncIterator[Reader]:
    """Open an existing database for a command that only reads, even if it is read-only.

    Raises:
        StoreError: it cannot be opened, or another process wrote to it during the read.
    """
    if isinstance(config.database, Path):
        path = str(located(config.database))
        if os.path.exists(path) and not may_write(path):
            with reading(path) as entries:
                yield Reader(entries)
            return
    async with open_database(config, create=False) as database:
        yield database


def files_of(database: Path) -> frozenset[Path]:
    """The database file, and every file that may belong to it."""
    real = os.path.realpath(database)
    suffixes = ("", "-tags", "-lock", "-wal", "-shm", "-journal", "-reserve")
    return frozenset(Path(real + suffix) for suffix in suffixes)


def log_of(database: Path) -> Path | None:
    """The log beside a database that holds a part of its contents, if there is one."""
    return _beside(database, "-wal", "-journal")


def companions_in_use(database: Path) -> Path | None:
    """A file beside a database that shows that it is in use, or needs its log.

    If the database were replaced, SQLite would apply the old log to the new one.
    """
    return _beside(database, "-wal", "-journal", "-tags")


def _beside(database: Path, *suffixes: str) -> Path | None:
    real = os.path.realpath(database)
    for suffix in suffixes:
        with suppress(OSError):
            if os.stat(real + suffix).st_size:
                return Path(real + suffix)
    return None


def tags_path(database: Path) -> Path:
    """The path of a database's tag file."""
    return Path(f"{database}-tags")


def look_before_touching(database: Path) -> None:
    """Check that the path is free or holds our database, with no foreign files beside it.

    Raises:
        CannotOpen: it is not. Nothing was created or changed.
    """
    path = str(database)
    if database.exists():
        check_file(path)
    check_companions_kind(path)
    # A tag file proves that the database is ours. The database may be in use, and then must not be
    # inspected.
    if not is_marked(tags_path(database)):
        check_ours(path)


def open_tags(path: Path) -> TagFile:
    """Open the tag file; on a full disk, give up the reserve to make room for it."""
    try:
        return TagFile.open(tags_path(path), like=path)
    except CannotOpen as error:
        if getattr(error.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            raise
    Reserve(str(path)).release()
    return TagFile.open(tags_path(path), like=path)
