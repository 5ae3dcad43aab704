"""A real Chromium, driven by Playwright, that looks at a real service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

UI: Final = Path(__file__).parents[2] / "tenantbase" / "console" / "ui"
AXE: Final = UI / "node_modules" / "axe-core" / "axe.min.js"
PHONE: Final = {"width": 390, "height": 844}
WIDE: Final = {"width": 1280, "height": 800}
PATIENCE_MILLISECONDS: Final = 45_000  # for anything a test waits for, on a busy machine
expect.set_options(timeout=PATIENCE_MILLISECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser inside the block. It contacts no server by itself."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            # Tests run as root in containers, where the sandbox cannot start.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            browser.close()


class Console:
    """A tab with the console, and everything that went wrong in it.

    Args:
        allowed: texts of console messages that the test provokes, such as refused requests.
    """

    def __init__(self, browser: Browser, base_url: str, **options: Any) -> None:
        self.base_url = base_url
        self.context = browser.new_context(
            **{"viewport": WIDE, "reduced_motion": "reduce", "accept_downloads": True, **options}
        )
        self.context.set_default_timeout(PATIENCE_MILLISECONDS)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _heard(self, message: ConsoleMessage) -> None:
        # A refused request is the service's answer, and part of many tests.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def open(self, address: str = "") -> Page:
        """Go to an address after the ``#``, and wait until the page has begun."""
        self.page.goto(f"{self.base_url}/{address}")
        self.page.locator("main").first.wait_for()
        return self.page

    def close(self) -> None:
        """Close the tab. Nothing may have gone wrong, and no other server been asked."""
        self.context.close()
        assert self.errors == []
        own = {self.base_url.removeprefix("http://")}
        assert {host for host in self.hosts if host} <= own, "another host was contacted"


def check(page: Page) -> None:
    """axe finds nothing."""
    # The page's own policy forbids scripts of others, so axe is evaluated by the debugger.
    page.evaluate(AXE.read_text() + "; undefined")
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    shown = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
    assert shown == []
