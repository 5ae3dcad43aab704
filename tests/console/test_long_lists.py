"""A list of more keys than the page ever holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app_server import AppServer
from tests.console.browser import Console

pytestmark = pytest.mark.integration

KEYS = 6_000
MAX_NODES = 1_500


@pytest.fixture(scope="module")
def filled(service: AppServer) -> AppServer:
    for start in range(0, KEYS, 1000):
        values = [{"key": f"k/{i:06}", "value": i} for i in range(start, start + 1000)]
        body = json.dumps({"values": values}).encode()
        assert service.ask("POST", "/set-values", body).status == 200
    return service


def row(page: Page, number: int) -> Locator:
    return page.get_by_role("row", name=re.compile(f"^Select {number:06} "))


def test_only_what_is_visible_is_read_and_drawn(
    filled: AppServer, console: Callable[..., Console]
) -> None:
    tab = console()
    requests: list[str] = []
    tab.page.on("request", lambda request: requests.append(request.url))
    page = tab.open("#/t/default/p/k%2F?all=1")
    expect(row(page, 0)).to_be_visible()
    expect(page.get_by_text(re.compile(r"^1–\d+ of 6,000$"))).to_be_visible()
    assert len([url for url in requests if "/v1/values?" in url]) <= 2
    # The end is one request away, and the keys between are not read.
    row(page, 0).click()
    page.keyboard.press("Escape")
    row(page, 0).focus()
    page.keyboard.press("End")
    expect(row(page, KEYS - 1)).to_be_focused()
    assert len([url for url in requests if "/v1/values?" in url]) <= 6
    page.keyboard.press("Home")
    expect(row(page, 0)).to_be_focused()
    assert page.evaluate("document.querySelectorAll('*').length") < MAX_NODES


def test_scrolling_reads_on_and_misses_nothing(
    filled: AppServer, console: Callable[..., Console]
) -> None:
    page = console().open("#/t/default/p/k%2F?all=1")
    expect(row(page, 0)).to_be_visible()
    seen = page.evaluate(
        """async total => {
            const scroll = document.querySelector('.scroll');
            const seen = new Set();
            const end = Date.now() + 90_000;
            while (seen.size < total && Date.now() < end) {
                for (const row of document.querySelectorAll('[data-key]')) seen.add(row.dataset.key);
                scroll.scrollTop += scroll.clientHeight;
                await new Promise(requestAnimationFrame);
            }
            return seen.size;
        }""",
        KEYS,
    )
    assert seen == KEYS
    expect(page.get_by_text("6,000 rows, all loaded")).to_be_visible()
    # Back at the top, pages that were dropped are read again.
    page.locator(".scroll").evaluate("scroll => { scroll.scrollTop = 0 }")
    expect(row(page, 0)).to_be_visible()
    expect(row(page, 5)).to_be_visible()


def test_descending_order_and_a_filter(filled: AppServer, console: Callable[..., Console]) -> None:
    page = console().open("#/t/default/p/k%2F?order=desc")
    expect(row(page, KEYS - 1)).to_be_visible()
    page.get_by_role("searchbox", name="Filter by prefix").fill("0012")
    expect(row(page, 1299)).to_be_visible()
    expect(page.get_by_text("100 rows, all loaded")).to_be_visible()
    expect(page).to_have_url(re.compile("q=0012"))
    expect(page).to_have_url(re.compile("order=desc"))
