"""The life of one worker: open, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

from tenantbase.process.config import Config
from tenantbase.process.exit_timer import ExitTimer
from tenantbase.process.sweeper import sweeping
from tenantbase.process.tls import Certificates
from tenantbase.web import Lifecycle, WebSettings, create_app, serving
from tenantbase.process.wiring import Memcached, open_cache

try:
    import uvloop
except ImportError:  # there is none for this Python or this system
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop

# A read of many keys makes many containers that live for a moment. With the thresholds that Python
# begins with, a quarter of its time goes into looking through them for cycles.
_GC_THRESHOLDS: Final = (10_000, 20, 50)
_GRACE: Final = 5.0  # seconds for what has no deadline of its own when the service ends


def run(
    config: Config,
    sockets: Sequence[socket.socket],
    memcached: Memcached | None,
    certificates: Certificates | None = None,
    *,
    ready: Callable[[], object],
    beat: Callable[[], object],
    beat_seconds: float,
    orders: int,
) -> None:
    """Serve until told to end, then drain and close.

    Args:
        sockets: they listen; closed at the end.
        certificates: for TLS; read again on SIGHUP, which must be blocked until then.
        ready: called when requests are answered.
        beat: called by the event loop again and again for as long as it turns. Must not raise.
        beat_seconds: between two of these calls; 0: there are none.
        orders: a pipe whose end is the order to end; SIGTERM is one as well.

    Raises:
        TenantbaseError: the database could not be opened.
    """
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        if beat_seconds:
            _keep_calling(runner.get_loop(), beat, beat_seconds)
        runner.run(_live(config, sockets, memcached, certificates, ready, orders))


async def _live(
    config: Config,
    sockets: Sequence[socket.socket],
    memcached: Memcached | None,
    certificates: Certificates | None,
    ready: Callable[[], object],
    orders: int,
) -> None:
    allowed = config.drain_delay + config.drain_timeout + config.write_timeout + _GRACE
    stuck = ExitTimer(allowed, f"not everything has ended in {allowed:g} s; giving up")
    stop = asyncio.Event()
    _obey(stop, stuck, orders)
    if certificates is not None:
        certificates.reload_on_hangup()
    settings = _web_settings(config, certificates)
    lifecycle = Lifecycle()
    try:
        async with open_cache(config, memcached) as cache, sweeping(cache):
            async with serving(
                create_app(cache, settings, lifecycle), sockets, lifecycle, settings
            ):
                gc.freeze()  # what is there by now stays, and need not be looked through
                gc.set_threshold(*_GC_THRESHOLDS)
                if not stop.is_set():
                    ready()
                await stop.wait()
    finally:
        stuck.call_off()


def _keep_calling(
    loop: asyncio.AbstractEventLoop, function: Callable[[], object], seconds: float
) -> None:
    def call() -> None:
        loop.call_later(seconds, call)
        function()

    loop.call_soon(call)


def _obey(stop: asyncio.Event, stuck: ExitTimer, orders: int) -> None:
    """Set ``stop`` when the order to end comes; from then on there is a last resort."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not stop.is_set():
            stop.set()
            stuck.start()

    def ordered() -> None:
        loop.remove_reader(orders)
        end()

    # A signal to all processes at once, as service managers send it, is no second order here.
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_reader(orders, ordered)


def _web_settings(config: Config, certificates: Certificates | None) -> WebSettings:
    return WebSettings(
        tls=None if certificates is None else certificates.context,
        loopback=config.loopback,
        allowed_hosts=frozenset(config.allowed_host),
        cors_origins=frozenset(config.cors_origin),
        max_value_bytes=config.max_value_bytes,
        max_request_bytes=config.max_request_bytes,
        max_inflight_bytes=config.max_inflight_bytes,
        max_connections=config.max_connections,
        body_timeout=config.body_timeout,
        keepalive_timeout=config.keepalive_timeout,
        fast_path=not config.no_fast_path,
        send_timeout=config.send_timeout,
        drain_delay=config.drain_delay,
        drain_timeout=config.drain_timeout,
    )
