"""One worker process: open the database, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from tenantbase.auth.rates import Rates
from tenantbase.database import Database
from tenantbase.errors import ConfigError, TenantbaseError
from tenantbase.interfaces.tracing import Tracer
from tenantbase.metrics.board import Board
from tenantbase.metrics.pulse import Pulse, beating
from tenantbase.process import logs
from tenantbase.process.config import Config
from tenantbase.process.exit_timer import ExitTimer
from tenantbase.process.listening import Listening
from tenantbase.process.memory import return_freed_memory
from tenantbase.process.space import watching_space
from tenantbase.process.sweeper import sweeping
from tenantbase.process.tls import Certificates
from tenantbase.process.wiring import Memcached, limits_of, open_database, reporting, tracing
from tenantbase.web import Lifecycle, WebSettings, create_app, serving
from tenantbase.web.access_log import AccessLog
from tenantbase.web.app import REQUEST_CELLS
from tenantbase.web.forwarding import Proxies
from tenantbase.web.handlers.figures import Measured
from tenantbase.web.observer import Finished, Observer
from tenantbase.web.tracing import Tracing

try:
    import uvloop
except ImportError:  # uvloop does not support this Python or this system
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop

log = logging.getLogger("tenantbase.worker")

# A bulk read creates many short-lived containers. With Python's default thresholds, a quarter of its
# time goes into searching them for cycles.
_GC_THRESHOLDS: Final = (10_000, 20, 50)
_SHUTDOWN_GRACE_SECONDS: Final = 5.0  # for the parts of a shutdown without a timeout of their own


def run(
    config: Config,
    listening: Listening,
    memcached: Memcached | None,
    certificates: Certificates | None = None,
    *,
    ready: Callable[[], object],
    beat: Callable[[], object],
    beat_seconds: float,
    shutdown_pipe: int,
    rates: Rates | None = None,
    figures: tuple[Board, int] | None = None,
    refuse_open: bool = True,
) -> None:
    """Serve until SIGTERM or until ``shutdown_pipe`` is closed, then drain and close.

    Args:
        listening: its sockets are closed at the end.
        certificates: for TLS. SIGHUP reloads them; it must be blocked when this is called.
        ready: called once requests are answered.
        beat: the heartbeat, called by the event loop at intervals. Must not raise.
        beat_seconds: the interval; 0 turns heartbeats off.
        shutdown_pipe: the read end of a pipe. End of file there means: shut down.
        rates: the requests of each tenant, counted by all workers; None: this is the only one.
        figures: the figures of all workers, and this worker's slot; None: this is the only one.
        refuse_open: raise an error if the database is open and other machines can reach it. Without
            this, every request is refused until the first token closes the database.

    Raises:
        TenantbaseError: the database could not be opened, or is open to other machines.
        SystemExit: anything else failed; the log says what.
    """
    return_freed_memory()
    with (
        reporting(config),
        _logging_failure(),
        asyncio.Runner(loop_factory=_new_event_loop) as runner,
    ):
        loop = runner.get_loop()
        logs.log_loop_errors(loop)
        _call_repeatedly(loop, logs.summarise, logs.SUMMARY_SECONDS)
        if beat_seconds:
            _call_repeatedly(loop, beat, beat_seconds)
        runner.run(
            _serve_until_stopped(
                config,
                listening,
                memcached,
                certificates,
                ready,
                shutdown_pipe,
                rates or Rates(),
                figures or (Board(1, REQUEST_CELLS.end), 0),
                refuse_open,
            )
        )


@contextmanager
def _logging_failure() -> Iterator[None]:
    """Log what ends the worker while errors are still reported."""
    try:
        yield
    except TenantbaseError:
        raise  # the supervisor logs it
    except Exception as error:  # any bug
        log.exception("the worker has failed")
        raise SystemExit(1) from error


async def _serve_until_stopped(
    config: Config,
    listening: Listening,
    memcached: Memcached | None,
    certificates: Certificates | None,
    ready: Callable[[], object],
    shutdown_pipe: int,
    rates: Rates,
    figures: tuple[Board, int],
    refuse_open: bool,
) -> None:
    timeouts = config.drain_delay + config.drain_timeout + config.write_timeout
    allowed = timeouts + _SHUTDOWN_GRACE_SECONDS
    last_resort = ExitTimer(allowed, f"shutdown did not finish within {allowed:g} s; giving up")
    stop = asyncio.Event()
    _watch_for_shutdown(stop, last_resort, shutdown_pipe)
    if certificates is not None:
        certificates.reload_on_hangup()
    settings = web_settings(config, certificates, listening)
    lifecycle = Lifecycle()
    board, slot = figures
    cells = board.cells(slot)
    try:
        async with (
            AsyncExitStack() as stack,
            open_database(config, memcached, figures=cells) as database,
            sweeping(database),
            watching_space(database),
        ):
            tracer = stack.enter_context(tracing(config))
            pulse = Pulse(
                board, cells, lambda: database.cache_available, lambda: database.cache_away
            )
            if refuse_open and not settings.may_be_open:
                await _check_closed(database, config, listening)
            observer = measured = None
            if not config.no_metrics:
                observer = Observer(REQUEST_CELLS, cells)
                servers = config.memcached if isinstance(config.memcached, tuple) else ()
                measured = Measured(
                    board,
                    pulse,
                    REQUEST_CELLS,
                    config.metrics_per_tenant,
                    [str(server) for server in servers],
                )
            if config.access_log != "off" or tracer is not None:
                observer = observer or Observer(REQUEST_CELLS)
                _tell_of_requests(observer, config, tracer)
            app = create_app(database, settings, lifecycle, rates, observer, measured)
            with beating(pulse):
                async with serving(app, listening.sockets, lifecycle, settings):
                    gc.freeze()  # all objects so far are permanent, so the collector can skip them
                    gc.set_threshold(*_GC_THRESHOLDS)
                    if not stop.is_set():
                        ready()
                    await stop.wait()
    finally:
        last_resort.cancel()


def _tell_of_requests(observer: Observer, config: Config, tracer: Tracer | None) -> None:
    """Connect the observer to the access log and the tracer, if there are any."""
    told: list[Callable[[Finished], object]] = []
    least = math.inf
    if config.access_log != "off":
        access_log = AccessLog(
            every=config.access_log == "all",
            slow_seconds=config.slow_seconds,
            keys=config.log_keys,
            proxies=Proxies(config.trusted_proxy),
        )
        told.append(access_log)
        least = access_log.least
    if tracer is not None:
        told.append(Tracing(tracer))
        least = 0

    def tell(finished: Finished) -> None:
        for each in told:
            each(finished)

    observer.log_from, observer.log = least, tell


async def _check_closed(database: Database, config: Config, listening: Listening) -> None:
    """Return if every request needs a token. Raises ConfigError."""
    if not (await database.current_access()).closed:
        missing = "" if config.tls_cert else ", without encryption"
        raise ConfigError(
            f"{listening.exposed} is reachable from other machines, and the database has no tokens:"
            f" anybody could use it{missing}; make one with `tenantbase token create`, or add"
            " --insecure if that is intended"
        )


def _call_repeatedly(
    loop: asyncio.AbstractEventLoop, function: Callable[[], object], seconds: float
) -> None:
    def call() -> None:
        loop.call_later(seconds, call)
        function()

    loop.call_soon(call)


def _watch_for_shutdown(stop: asyncio.Event, last_resort: ExitTimer, shutdown_pipe: int) -> None:
    """Set ``stop``, and start the last resort, on SIGTERM or when the pipe is closed."""
    loop = asyncio.get_running_loop()

    def shut_down() -> None:
        # Service managers signal all processes at once, so a second cause is not a second request.
        if not stop.is_set():
            stop.set()
            last_resort.start()

    def pipe_closed() -> None:
        loop.remove_reader(shutdown_pipe)
        shut_down()

    loop.add_signal_handler(signal.SIGTERM, shut_down)
    loop.add_reader(shutdown_pipe, pipe_closed)


def web_settings(
    config: Config, certificates: Certificates | None = None, listening: Listening | None = None
) -> WebSettings:
    """The web layer's part of the configuration; without ``listening``, of a server on loopback."""
    return WebSettings(
        tls=None if certificates is None else certificates.context,
        loopback=listening is None or listening.loopback,
        may_be_open=listening is None or listening.exposed is None or config.insecure,
        allowed_hosts=frozenset(config.allowed_host),
        cors_origins=frozenset(config.cors_origin),
        trusted_proxies=config.trusted_proxy,
        limits=limits_of(config),
        max_request_bytes=config.max_request_bytes,
        max_inflight_bytes=config.max_inflight_bytes,
        max_connections=config.max_connections,
        max_requests=config.max_requests,
        body_timeout=config.body_timeout,
        keepalive_timeout=config.keepalive_timeout,
        fast_path=not config.no_fast_path,
        console=not config.no_console,
        send_timeout=config.send_timeout,
        drain_delay=config.drain_delay,
        drain_timeout=config.drain_timeout,
    )
