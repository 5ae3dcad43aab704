"""A service that takes long, or asks to wait: the console says so, and can be stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.app_server import AppServer
from tests.console.browser import PATIENCE_MILLISECONDS, Console, check
from tests.console.entries import put, row

pytestmark = pytest.mark.integration


@contextmanager
def paused(service: AppServer) -> Iterator[None]:
    """Inside the block, nothing is answered."""
    service.pause()
    try:
        yield
    finally:
        service.resume()


def test_a_slow_list_can_be_stopped(service: AppServer, console: Callable[..., Console]) -> None:
    put(service, "slow/list/a", b"1")
    page = console().open("#/t/default/p/slow%2F")
    row(page, "list/").wait_for()
    keys = page.get_by_role("region", name="Keys")
    with paused(service):
        row(page, "list/").click()
        expect(keys.get_by_text("Still loading")).to_be_visible()
        check(page)
        keys.get_by_role("button", name="Stop").click()
        expect(keys.get_by_role("heading", name="The list was not read")).to_be_visible()
        keys.get_by_role("button", name="Read it").click()
    expect(row(page, "a")).to_be_visible()


def test_a_slow_value_can_be_stopped(service: AppServer, console: Callable[..., Console]) -> None:
    put(service, "slow/value", b'{"n": 1}')
    page = console().open("#/t/default/k/slow%2Fvalue")
    show = page.get_by_role("button", name="Show value")
    show.wait_for()
    value = page.get_by_role("region", name="Value", exact=True)
    with paused(service):
        show.click()
        expect(value.get_by_text("Still loading")).to_be_visible()
        value.get_by_role("button", name="Stop").click()
        expect(value.get_by_text("You stopped it.")).to_be_visible()
    value.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("region", name="Value of slow/value")).to_contain_text('"n": 1')


def test_a_service_that_asks_to_wait_is_asked_again(browser: Browser, tmp_path: Path) -> None:
    with AppServer(tmp_path / "db") as server:
        put(server, "one", b"1")
        limits = json.dumps({"max_requests_per_second": 1}).encode()
        assert server.ask("PUT", "/v1/tenants/default", limits).status == 200
        tab = Console(browser, server.base_url)
        page = tab.open("#/t/default/p/")
        # Most of its requests are refused at first.
        expect(row(page, "one")).to_be_visible()
        tab.close()


def test_figures_that_are_old_say_so(browser: Browser, tmp_path: Path) -> None:
    with AppServer(tmp_path / "db") as server:
        tab = Console(browser, server.base_url)
        page = tab.open("#/t/default/p/")
        live = page.get_by_text("Live", exact=True)
        expect(live).to_be_visible()
        page.get_by_role("link", name="Health").first.click()
        expect(page.get_by_text("Up for")).to_be_visible()
        # No changes are followed here.
        expect(live).to_have_count(0)
        server.stop()
        expect(page.get_by_text("The figures could not be read.")).to_be_visible()
        check(page)
        server.start()
        expect(page.get_by_text("The figures could not be read.")).to_have_count(0)
        page.go_back()
        expect(live).to_be_visible()
        tab.errors = [each for each in tab.errors if "ERR_CONNECTION" not in each]
        tab.close()


def test_a_folder_is_counted_to_its_end(
    service: AppServer, console: Callable[..., Console]
) -> None:
    """However long it takes: what is deleted is what was counted."""
    for start in range(0, 30_000, 5000):
        values = [{"key": f"lots/{i}", "value": 0} for i in range(start, start + 5000)]
        body = json.dumps({"values": values}).encode()
        assert service.ask("POST", "/set-values", body).status == 200
    page = console().open("#/t/default/p/lots%2F")
    expect(page.get_by_role("button", name="Delete all 30,000…")).to_be_visible(
        timeout=2 * PATIENCE_MILLISECONDS
    )
