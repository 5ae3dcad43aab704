"""Selected keys and folders, and files that are dropped onto the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app_server import AppServer
from tests.console.browser import Console
from tests.console.entries import put, row

pytestmark = pytest.mark.integration

Open = Callable[..., Console]


def drop(page: Page, *files: Path) -> None:
    """Drag files from the desktop onto the list and let them go, as the browser itself reports it."""
    box = page.get_by_role("region", name="Keys").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
    page.get_by_text("Drop to store under").wait_for()
    session.send("Input.dispatchDragEvent", {"type": "drop", "x": x, "y": y, "data": data})
    expect(page.get_by_text("Drop to store under")).to_have_count(0)


def test_dropped_files_are_stored_as_they_are(
    service: AppServer, console: Open, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "b.txt").write_text("text")
    put(service, "dropped/here", b"1")
    page = console().open("#/t/default/p/dropped%2F")
    row(page, "here").wait_for()
    drop(page, tmp_path / "a.bin", tmp_path / "b.txt")
    dialog = page.get_by_role("dialog", name="Store 2 files")
    expect(dialog.get_by_role("textbox", name="Under")).to_have_value("dropped/")
    dialog.get_by_role("button", name="Store").click()
    expect(row(page, "a.bin")).to_be_visible()
    expect(row(page, "b.txt")).to_contain_text("text")
    answer = service.ask("GET", "/v1/values/dropped%2Fa.bin")
    assert answer.body == bytes(range(256))


def test_a_dropped_export_is_imported(service: AppServer, console: Open, tmp_path: Path) -> None:
    (tmp_path / "keys.ndjson").write_text('{"key": "dropped/n", "value": 1.0}\n')
    put(service, "dropped/here", b"1")
    page = console().open("#/t/default/p/dropped%2F")
    row(page, "here").wait_for()
    drop(page, tmp_path / "keys.ndjson")
    page.get_by_role("dialog", name="Import keys.ndjson").get_by_role("button").last.click()
    expect(page.get_by_role("dialog", name="Import finished")).to_be_visible()
    assert service.ask("GET", "/v1/values/dropped%2Fn").body == b"1.0"


def test_files_too_large_are_named(service: AppServer, console: Open, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes((1 << 20) + 1))
    put(service, "dropped/here", b"1")
    page = console().open("#/t/default/p/dropped%2F")
    row(page, "here").wait_for()
    drop(page, tmp_path / "large.bin")
    page.get_by_role("button", name="Store", exact=True).click()
    dialog = page.get_by_role("dialog", name="Some files were not stored")
    expect(dialog).to_contain_text(
        "dropped/large.bin: 1 MiB: this service takes at most 1 MiB a value."
    )
    assert service.ask("GET", "/v1/values/dropped%2Flarge.bin").status == 404


def test_nothing_can_be_dropped_by_a_reader(service: AppServer, console: Open) -> None:
    """What a page of the web holds while it is dragged is not stored, only files are."""
    put(service, "dropped/here", b"1")
    page = console().open("#/t/default/p/dropped%2F")
    row(page, "here").wait_for()
    transfer = page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.setData('text/plain', 'x'); return data; }"
    )
    page.dispatch_event("main", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("dialog")).to_have_count(0)


def select(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()


def test_folders_that_a_command_leaves_out_are_named(service: AppServer, console: Open) -> None:
    for key in ("some/a", "some/b", "some/folder/c"):
        put(service, key, f'"{key}"'.encode())
    page = console().open("#/t/default/p/some%2F")
    row(page, "a").wait_for()
    select(page, "a", "b", "folder/")
    page.get_by_role("button", name="Copy to…").click()
    dialog = page.get_by_role("dialog", name="Copy 2 keys")
    expect(dialog).to_contain_text("1 folder left out.")
    dialog.get_by_role("textbox", name="Into the folder").fill("copied/")
    dialog.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied 2 keys to copied/")).to_be_visible()
    listed = service.ask("GET", "/v1/values?prefix=copied/&fields=key").json["values"]
    assert [each["key"] for each in listed] == ["copied/a", "copied/b"]
    select(page, "folder/")
    page.get_by_role("button", name="Expiry…").click()
    dialog = page.get_by_role("dialog", name="When it expires")
    expect(dialog).to_contain_text("0 keys. 1 folder left out.")
    expect(dialog.get_by_role("button", name="Change")).to_have_attribute("aria-disabled", "true")


def test_keys_gone_meanwhile_do_not_stop_the_others(service: AppServer, console: Open) -> None:
    for key in ("ttl/a", "ttl/b"):
        put(service, key, b"1")
    page = console().open("#/t/default/p/ttl%2F")
    row(page, "b").wait_for()
    select(page, "a", "b")
    page.get_by_role("button", name="Expiry…").click()
    service.ask("DELETE", "/delete-value?key=ttl/a")
    page.get_by_role("dialog").get_by_role("button", name="Change").click()
    expect(page.get_by_text("1 key did not exist any more.")).to_be_visible()
    assert service.ask("GET", "/get-value?key=ttl/b").json["expires_at"] is not None


def test_an_exported_key_is_that_key(service: AppServer, console: Open) -> None:
    """Not one that begins with it, which took its place in the list of keys."""
    put(service, "export/k", b"1")
    put(service, "export/kk", b"2")
    page = console().open("#/t/default/p/export%2F")
    row(page, "kk").wait_for()
    select(page, "k", "kk")
    service.ask("DELETE", "/delete-value?key=export/k")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).first.click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["export/kk"]
