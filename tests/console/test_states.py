"""Tokens, lost connections, hostile content and accessibility of the console."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app_server import AppServer
from tests.console.browser import PHONE, Console, check
from tests.console.entries import put

pytestmark = pytest.mark.integration

Open = Callable[..., Console]
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Closed:
    """A service that tokens close, and the tokens."""

    def __init__(self, server: AppServer) -> None:
        self.server = server
        self.admin = self._made("admin", None, {"name": "operator", "scope": "admin"})["token"]

    def _made(self, name: str, by: str | None, body: dict[str, Any]) -> Any:
        headers = {} if by is None else {"Authorization": f"Bearer {by}"}
        answer = self.server.ask("POST", "/v1/tokens", json.dumps(body).encode(), headers)
        assert answer.status == 201, name
        return answer.json

    def token(self, **body: Any) -> Any:
        return self._made(body["name"], self.admin, body)

    def put(self, key: str, value: str) -> None:
        body = f'{{"key": {json.dumps(key)}, "value": {value}}}'.encode()
        headers = {"Authorization": f"Bearer {self.admin}"}
        assert self.server.ask("POST", "/set-value", body, headers).status == 200

    def revoke(self, token: Any) -> None:
        headers = {"Authorization": f"Bearer {self.admin}"}
        assert self.server.ask("DELETE", f"/v1/tokens/{token['id']}", None, headers).status == 204


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    with AppServer(tmp_path_factory.mktemp("closed") / "db") as server:
        site = Closed(server)
        site.put("user/1", '{"n": 1}')
        site.put("other/1", '"secret"')
        yield site


@pytest.fixture
def gate(browser: Browser, closed: Closed) -> Iterator[Open]:
    """Opens tabs on the closed service."""
    opened: list[Console] = []

    def open_tab(**options: Any) -> Console:
        opened.append(Console(browser, closed.server.base_url, **options))
        return opened[-1]

    yield open_tab
    for each in opened:
        each.close()


def enter(page: Page, token: str) -> None:
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Open the console").click()
    page.get_by_role("navigation", name="Sections").first.wait_for()


def test_a_token_is_asked_for_and_kept_in_memory_only(closed: Closed, gate: Open) -> None:
    tab = gate()
    page = tab.open("#/t/default/k/user%2F1")
    page.get_by_role("textbox", name="Token").fill("tb_" + "x" * 43)
    page.get_by_role("button", name="Open the console").click()
    expect(
        page.get_by_text("Not accepted: it is unknown, has expired or was revoked.")
    ).to_be_visible()
    check(page)
    enter(page, closed.admin)
    page.get_by_role("button", name="Show value").click()
    expect(page.get_by_role("region", name="Value of user/1")).to_contain_text('"n": 1')
    expect(page.get_by_label("Command that reads this value")).to_contain_text("$TENANTBASE_TOKEN")
    stores = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    assert closed.admin[3:] not in page.evaluate(stores) + page.content()
    page.reload()
    expect(page.get_by_role("textbox", name="Token")).to_be_visible()


def test_what_a_token_may_not_do_is_not_there(closed: Closed, gate: Open) -> None:
    token = closed.token(name="support-desk", scope="read", prefix="user/")
    page = gate().open()
    enter(page, token["token"])
    expect(page.get_by_role("row", name="Select 1 ")).to_be_visible()
    page.get_by_role("row", name="Select 1 ").click()
    page.get_by_role("button", name="Show value").click()
    for name in ("New key", "Edit", "Delete", "Change when it expires"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("link", name="Tenants and tokens")).to_have_count(0)
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    expect(page.get_by_role("region", name="Value of user/1")).to_be_visible()
    page.goto(f"{closed.server.base_url}/#/t/default/k/other%2F1")
    expect(page.get_by_role("heading", name="Your token does not reach this key")).to_be_visible()
    check(page)


def test_a_folder_out_of_reach_offers_nothing_that_would_fail(closed: Closed, gate: Open) -> None:
    token = closed.token(name="writer", scope="write", prefix="user/")
    page = gate().open("#/t/default/p/other%2F")
    enter(page, token["token"])
    expect(page.get_by_role("heading", name="Your token does not reach these keys")).to_be_visible()
    expect(page.get_by_role("navigation", name="Path")).to_have_text("other/")
    expect(page.get_by_role("button", name="New key")).to_have_count(0)
    page.get_by_role("button", name="Import, export, upload").click()
    expect(page.get_by_role("menuitem", name=re.compile("Import|Upload|Export"))).to_have_count(0)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Go to user/").first.click()
    expect(page.get_by_role("button", name="New key").first).to_be_visible()


def test_a_token_that_is_revoked_while_the_page_is_open(closed: Closed, gate: Open) -> None:
    token = closed.token(name="short", scope="write")
    page = gate().open("#/t/default/k/user%2F1/edit")
    enter(page, token["token"])
    editor = page.get_by_role("textbox", name="Value of user/1")
    editor.fill('{"n": "draft"}')
    closed.revoke(token)
    expect(page.get_by_text("Your token was revoked.")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Use another token").click()
    enter(page, closed.admin)
    expect(page.get_by_role("textbox", name="Value of user/1")).to_have_value('{"n": "draft"}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name="Messages")).to_contain_text("Saved user/1")


def test_tenants_and_tokens(closed: Closed, gate: Open) -> None:
    page = gate().open()
    enter(page, closed.admin)
    page.get_by_role("link", name="Tenants and tokens").first.click()
    page.get_by_role("button", name="New tenant").click()
    page.get_by_role("textbox", name="Name").fill("acme")
    page.get_by_role("textbox", name="Most entries").fill("4")
    page.get_by_role("button", name="Make tenant").click()
    card = page.get_by_role("listitem").filter(has_text="acme")
    expect(card).to_contain_text("0 of 4")
    for i in range(4):
        body = f'{{"key": "k{i}", "value": 1}}'.encode()
        headers = {"Authorization": f"Bearer {closed.admin}", "X-Tenant": "acme"}
        assert closed.server.ask("POST", "/set-value", body, headers).status == 200
    expect(card).to_contain_text("100 %, full")
    expect(card.get_by_role("meter", name="Entries")).to_have_attribute("aria-valuetext", "4 of 4")
    page.get_by_role("button", name="New token").click()
    page.get_by_role("textbox", name="Name").fill("ci-runner")
    page.get_by_role("button", name="write", exact=True).click()
    page.get_by_label("Tenant", exact=True).select_option("acme")
    page.get_by_role("button", name="Make token").click()
    secret = page.get_by_label("The new token").inner_text()
    assert re.fullmatch(r"tb_[\w-]{43}", secret)
    check(page)
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_label("The new token")).to_have_count(0)
    assert secret not in page.content()
    page.get_by_role("button", name="Revoke ci-runner").click()
    expect(page.get_by_role("cell", name="ci-runner")).to_have_count(0)
    page.get_by_role("button", name="Delete tenant acme").click()
    dialog = page.get_by_role("dialog", name="Delete tenant acme?")
    expect(dialog.get_by_role("button", name="Delete tenant")).to_be_disabled()
    dialog.get_by_role("textbox", name="Type acme to confirm").fill("acme")
    dialog.get_by_role("button", name="Delete tenant").click()
    expect(page.get_by_role("button", name="Delete tenant acme")).to_have_count(0)


def test_the_service_restarts_while_the_page_is_open(browser: Browser, tmp_path: Path) -> None:
    with AppServer(tmp_path / "db") as server:
        put(server, "kept", b"1", "application/json")
        tab = Console(browser, server.base_url)
        page = tab.open("#/t/default/k/kept/edit")
        editor = page.get_by_role("textbox", name="Value of kept")
        editor.fill("2")
        server.stop()
        expect(page.get_by_text("Connection lost.").first).to_be_visible()
        expect(page.get_by_text("Waiting for the connection").first).to_be_visible()
        check(page)
        server.start()
        put(server, "meanwhile", b"1", "application/json")
        # It comes back by itself, and resumes where it was.
        expect(page.get_by_text("Connection lost.", exact=True)).to_be_hidden()
        expect(page.get_by_role("row", name="Select meanwhile ")).to_be_visible()
        expect(editor).to_have_value("2")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("region", name="Messages")).to_contain_text("Saved kept")
        tab.errors = [each for each in tab.errors if "ERR_CONNECTION" not in each]
        tab.close()


HOSTILE = {
    "<script>alert(1)</script>": (SCRIPT.encode(), "text/html"),
    "svg": (f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>".encode(), "image/svg+xml"),
    "not an image": (SCRIPT.encode(), "image/png"),
    "notes-\u202efdp.exe": ("\u202e\u0007\x1b[31mred\u2066".encode(), "text/plain"),
    "..": (b'{"up": true}', "application/json"),
    "a\nb\u0000".rstrip("\u0000") + "%2F?#&": (b"[]", "application/json"),
    "not utf-8": (b"\xff\xfe<b>", "text/plain"),
    "\U0001f600" * 256: (b'"' + b"x" * 500_000 + b'"', "application/json"),
    "deep": (b"[" * 512 + b"]" * 512, "application/json"),
    "many": (b"[" + b"1," * 60_000 + b"1]", "application/json"),
    "nothing": (b"", "application/octet-stream"),
}


def test_hostile_content_stays_harmless(service: AppServer, console: Open) -> None:
    for key, (value, content_type) in HOSTILE.items():
        if key == "..":
            body = b'{"key": "..", "value": {"up": true}}'
            assert service.ask("POST", "/set-value", body).status == 200
        else:
            put(service, key, value, content_type)
    page = console().open()
    page.get_by_role("row", name="Select svg ").click()
    page.get_by_role("checkbox", name="Show values from now on").click()
    expect(page.get_by_role("region", name="Value of svg, Text")).to_contain_text("<script>")
    for key in HOSTILE:
        page.evaluate(
            "key => { location.hash = `#/t/default/k/${encodeURIComponent(key)}?p=` }", key
        )
        shown = page.locator(".panel .value")
        expect(shown.locator(".code, .hex, .empty, .counter").first).to_be_visible()
        assert page.title() != "owned"
        assert page.locator("main svg script, main img[src='x'], .value iframe").count() == 0
        # The page still answers.
        page.keyboard.press("Escape")
        expect(page.get_by_role("region", name="Folder")).to_be_visible()
    expect(page.get_by_role("row", name="fdp.exe")).to_contain_text("U+202E")


def test_large_values_are_asked_about_first(browser: Browser, tmp_path: Path) -> None:
    with AppServer(tmp_path / "db", "--max-value-bytes", str(8 << 20)) as server:
        put(server, "large", b'"' + b"y" * (3 << 20) + b'"', "application/json")
        tab = Console(browser, server.base_url)
        page = tab.open("#/t/default/k/large")
        page.get_by_role("button", name="Show value").click()
        page.get_by_role("button", name="Show the beginning").click()
        expect(page.get_by_text("The first 256 KiB of 3 MiB.")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert Path(download.value.path()).stat().st_size == (3 << 20) + 2
        tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(service: AppServer, console: Open, scheme: str) -> None:
    for name in ("axe/a", "axe/b/c"):
        put(service, name, b'{"n": [1, {"m": null}], "s": "text"}', "application/json")
    put(service, "axe/bytes", bytes(range(64)), "application/octet-stream")
    for options in ({}, {"viewport": PHONE}):
        page = console(color_scheme=scheme, **options).open("#/t/default/p/axe%2F")
        page.get_by_role("row", name="Select a ").wait_for()
        check(page)
        page.get_by_role("row", name="Select a ").click()
        page.get_by_role("button", name="Show value").wait_for()
        check(page)
        page.get_by_role("button", name="Show value").click()
        page.get_by_role("region", name="Value of axe/a").wait_for()
        check(page)
        page.get_by_role("button", name="Edit").click()
        page.get_by_role("textbox", name="Value of axe/a").fill("{")
        page.get_by_text("is missing at the end").wait_for()
        check(page)
        page.goto(f"{service.base_url}/#/t/default/new?p=axe%2F")
        page.get_by_role("textbox", name="Key", exact=True).wait_for()
        check(page)
        page.goto(f"{service.base_url}/#/t/default/k/axe%2Fbytes")
        page.get_by_role("button", name="Show value").click()
        page.get_by_role("region", name="Bytes of axe/bytes").wait_for()
        check(page)
        page.keyboard.press("t")
        page.get_by_role("dialog", name="When it expires").wait_for()
        check(page)
        page.keyboard.press("Escape")
        page.keyboard.press("Control+k")
        page.get_by_role("combobox").fill("axe")
        page.get_by_role("option", name="axe/").first.wait_for()
        check(page)
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keyboard").wait_for()
        check(page)
        page.keyboard.press("Escape")
        page.goto(f"{service.base_url}/#/t/default/p/nowhere%2F")
        page.get_by_text("Nothing under nowhere/.").wait_for()
        check(page)
        page.goto(f"{service.base_url}/#/tenants")
        page.get_by_role("heading", name="No tokens yet").wait_for()
        check(page)
        page.goto(f"{service.base_url}/#/health")
        page.get_by_role("heading", name="Health").wait_for()
        check(page)


def test_a_phone_shows_one_pane_at_a_time(service: AppServer, console: Open) -> None:
    put(service, "phone/a", b"1", "application/json")
    page = console(viewport=PHONE, has_touch=True).open("#/t/default/p/phone%2F")
    page.get_by_role("row", name="Select a ").click()
    expect(page.get_by_role("region", name="Keys")).to_be_hidden()
    page.get_by_role("button", name="Back to the list").click()
    expect(page.get_by_role("region", name="Keys")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
