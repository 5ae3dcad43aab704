"""The life of one worker: open, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final

from tenantbase.config import Config
from tenantbase.last_resort import LastResort
from tenantbase.sweeper import sweeping
from tenantbase.web import Life, WebSettings, create_app, serving
from tenantbase.wiring import Memcached, open_cache

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
    ready: Callable[[], object],
    *,
    orders: int | None = None,
) -> int:
    """Serve until told to end, then drain and close.

    Args:
        sockets: they listen; closed at the end.
        ready: called when requests are answered.
        orders: for a worker of a supervisor: a pipe whose end is the order to end. Without it
            SIGTERM and SIGINT are, and a second one ends the process at once.

    Returns: the exit status, 0.

    Raises:
        TenantbaseError: the database could not be opened.
    """
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(_live(config, sockets, memcached, ready, orders))
    return 0


async def _live(
    config: Config,
    sockets: Sequence[socket.socket],
    memcached: Memcached | None,
    ready: Callable[[], object],
    orders: int | None,
) -> None:
    allowed = config.drain_delay + config.drain_timeout + config.write_timeout + _GRACE
    stuck = LastResort(allowed, f"not everything has ended in {allowed:g} s; giving up")
    stop = asyncio.Event()
    _obey(stop, stuck, orders)
    settings = _web_settings(config)
    life = Life()
    try:
        async with open_cache(config, memcached) as cache, sweeping(cache):
            async with serving(create_app(cache, settings, life), sockets, life, settings):
                gc.freeze()  # what is there by now stays, and need not be looked through
                gc.set_threshold(*_GC_THRESHOLDS)
                if not stop.is_set():
                    ready()
                await stop.wait()
    finally:
        stuck.call_off()


def _obey(stop: asyncio.Event, stuck: LastResort, orders: int | None) -> None:
    """Set ``stop`` when the order to end comes; from then on there is a last resort."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not stop.is_set():
            stop.set()
            stuck.start()

    def end_or_exit(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        end()

    if orders is None:
        loop.add_signal_handler(signal.SIGTERM, end_or_exit, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, end_or_exit, signal.SIGINT)
        return

    def ordered() -> None:
        loop.remove_reader(orders)
        end()

    # A signal to all processes at once, as service managers send it, is no second order here.
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_reader(orders, ordered)


def _web_settings(config: Config) -> WebSettings:
    return WebSettings(
        loopback=config.loopback,
        allowed_hosts=frozenset(config.allowed_host),
        cors_origins=frozenset(config.cors_origin),
        max_value_bytes=config.max_value_bytes,
        max_request_bytes=config.max_request_bytes,
        max_inflight_bytes=config.max_inflight_bytes,
        max_connections=config.max_connections,
        body_timeout=config.body_timeout,
        keepalive_timeout=config.keepalive_timeout,
        fast_lane=not config.no_fast_lane,
        send_timeout=config.send_timeout,
        drain_delay=config.drain_delay,
        drain_timeout=config.drain_timeout,
    )
