"""``tenantbase migrate``: opens the two databases of a move, one of them a file."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tenantbase.coherence.tag_file import alone
from tenantbase.errors import CannotOpen, ConfigError, StoreError
from tenantbase.interfaces.moving import Source, Target
from tenantbase.interfaces.postgres.address import SCHEMES, DatabaseAddress
from tenantbase.interfaces.sqlite.file import located
from tenantbase.interfaces.sqlite.foreign import check_companions_kind, check_ours
from tenantbase.interfaces.sqlite.moving import SqliteSource, SqliteTarget
from tenantbase.interfaces.sqlite.open_read_only import immutable
from tenantbase.interfaces.sqlite.restoring import settle
from tenantbase.process import moving
from tenantbase.process.config import Config
from tenantbase.process.joining import source_of
from tenantbase.process.moving import Moved
from tenantbase.process.option_types import database_file
from tenantbase.process.wiring import tags_path

Tell = Callable[[int], object]
"""Called with the number of entries in each step."""

Warn = Callable[[str], object]
"""Called with the reason for a delay. The move goes on."""

# Patroni replaces a dead primary after about 25 s.
_FAILOVER_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 1.0
_MOST_LOSSES: Final = 20

Place = Path | DatabaseAddress
_Place = TypeVar("_Place", Source, Target)
_T = TypeVar("_T")
_Work = Callable[[Source, Target], Coroutine[None, None, _T]]


def place_of(text: str, option: str) -> Place:
    """What ``--from`` or ``--to`` names.

    Raises:
        ConfigError: it is neither a file nor the URL of a database.
    """
    try:
        if text.partition("://")[0] in SCHEMES:
            return DatabaseAddress.parse(text)
        return database_file(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def follow(config: Config, source: Place, target: Place, tell: Tell, warn: Warn) -> int:
    """Copy, beginning or going on; see ``moving.follow``. Servers may have the source open.

    Raises:
        ConfigError: both are files, or neither is.
        TenantbaseError: one of them cannot be opened; or as ``moving.follow``.
    """
    work: _Work[int] = partial(moving.follow, tell=tell)
    return _move(config, source, target, work, warn, still=False)


def finish(config: Config, source: Place, target: Place, tell: Tell, warn: Warn) -> Moved:
    """Copy what is left, and show the target; see ``moving.finish``.

    Raises:
        ConfigError, TenantbaseError: as ``follow``; or servers have the source open.
    """
    work: _Work[Moved] = partial(moving.finish, tell=tell)
    return _move(config, source, target, work, warn, still=True)


def _move(
    config: Config, source: Place, target: Place, work: _Work[_T], warn: Warn, *, still: bool
) -> _T:
    try:
        from tenantbase.interfaces.postgres.moving import PostgresSource, PostgresTarget
    except ImportError:
        raise CannotOpen("PostgreSQL needs another package: install tenantbase[postgres]") from None

    async def to_postgres(old: Source, address: DatabaseAddress) -> _T:
        return await _persist(lambda: target_on(address), partial(work, old), warn)

    async def from_postgres(address: DatabaseAddress, new: Target) -> _T:
        return await _persist(lambda: source_on(address), lambda old: work(old, new), warn)

    replicated, timeout = not config.store_unreplicated, config.store_timeout
    target_on = partial(PostgresTarget.open, replicated=replicated, timeout=timeout)
    source_on = partial(PostgresSource.open, replicated=replicated, timeout=timeout)

    # A move may be killed at any moment. Cancelling it would be worse: a COMMIT that waits for the
    # standby would succeed without it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if isinstance(source, Path) and isinstance(target, DatabaseAddress):
        with _file_source(config, source, still) as file_source:
            return asyncio.run(to_postgres(file_source, target))
    if isinstance(source, DatabaseAddress) and isinstance(target, Path):
        with _file_target(target) as file_target:
            return asyncio.run(from_postgres(source, file_target))
    raise ConfigError("--from, --to: expected a file and a postgresql:// URL")


async def _persist(
    opened: Callable[[], AbstractAsyncContextManager[_Place]],
    work: Callable[[_Place], Awaitable[_T]],
    warn: Warn,
) -> _T:
    """Do the work on a server and, if that is lost, continue on its successor.

    Raises:
        StoreError: it cannot be opened, or its successor not in time.
    """
    from tenantbase.interfaces.postgres.driver_errors import SessionLost

    lost: float | None = None
    losses = 0
    while True:
        is_open = False
        try:
            async with opened() as place:
                is_open = True
                return await work(place)
        except StoreError as error:
            losses += is_open
            if is_open and isinstance(error, SessionLost) and losses <= _MOST_LOSSES:
                warn(f"{error}; going on as soon as there is a primary")
                lost = time.monotonic()
            elif is_open or lost is None or time.monotonic() - lost > _FAILOVER_SECONDS:
                raise
        await asyncio.sleep(_RETRY_SECONDS)


@contextmanager
def _file_source(config: Config, path: Path, still: bool) -> Iterator[SqliteSource]:
    if not still:
        with source_of(replace(config, database=path)) as connection:
            yield SqliteSource(connection, str(path), still=False)
        return
    real = located(path)
    if not real.exists():
        raise CannotOpen(f"there is no database {path}")
    with alone(tags_path(real), real):
        check_ours(str(real))
        if settle(str(real)) is None:
            raise CannotOpen(f"{path} is damaged; tenantbase check says where")
        with immutable(str(real)) as connection:
            yield SqliteSource(connection, str(path), still=True)


@contextmanager
def _file_target(path: Path) -> Iterator[SqliteTarget]:
    real = located(path)
    if not real.parent.is_dir():
        raise CannotOpen(f"there is no directory {real.parent} for the database")
    check_companions_kind(str(real))
    # No server makes a database there meanwhile, and no other process moves one there.
    with alone(tags_path(real), real), SqliteTarget.open(str(real)) as target:
        yield target
