"""Entries as tests store them, and as the console lists them."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page

from tests.app_server import AppServer


def put(service: AppServer, key: str, value: bytes, content_type: str = "application/json") -> None:
    """Store a value under any key: the path has each byte of it encoded."""
    path = "".join(f"%{byte:02X}" for byte in key.encode())
    answer = service.ask("PUT", f"/v1/values/{path}", value, {"Content-Type": content_type})
    assert answer.status in (200, 201)


def row(page: Page, name: str) -> Locator:
    """The row of a key or folder in the open list."""
    return page.get_by_role(
        "row", name=re.compile("^Select " + re.escape(name).replace("/", r"\/") + " ")
    )
