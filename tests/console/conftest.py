"""One browser for all tests of the console, and one service for those of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.app_server import AppServer
from tests.console.browser import Console, chromium


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """The service as a user starts it, with a memcached of its own."""
    with AppServer(tmp_path_factory.mktemp("console") / "db") as server:
        yield server


@pytest.fixture
def console(browser: Browser, service: AppServer) -> Iterator[Callable[..., Console]]:
    """Opens tabs; on exit they are closed, and nothing may have gone wrong in them."""
    opened: list[Console] = []

    def open_tab(**options: Any) -> Console:
        opened.append(Console(browser, service.base_url, **options))
        return opened[-1]

    yield open_tab
    for each in opened:
        each.close()
