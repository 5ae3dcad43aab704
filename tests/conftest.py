"""What concerns all tests."""

from __future__ import annotations

import signal
import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

EVENT_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of a module on the event loops that it names in EVENT_LOOPS."""
    module = item.getparent(pytest.Module)
    names = getattr(module and module.obj, "EVENT_LOOPS", ["asyncio"])
    return {name: EVENT_LOOPS[name] for name in names}


# A shell without job control starts what runs in the background with SIGINT ignored, and what a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
