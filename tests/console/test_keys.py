"""Looking at keys and values, and changing them, as a person would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app_server import AppServer
from tests.console.browser import Console
from tests.servers import poll

pytestmark = pytest.mark.integration

Open = Callable[..., Console]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
EXACT = '{"id": 248480010225057793, "balance": 1.0, "note": "\\u00e9", "list": [1, 2, [3]]}'


def put(service: AppServer, key: str, value: str) -> None:
    body = f'{{"key": {json.dumps(key)}, "value": {value}}}'
    assert service.ask("POST", "/set-value", body.encode()).status == 200


def put_raw(service: AppServer, key: str, value: bytes, content_type: str) -> None:
    target = "/v1/values/" + key.replace("/", "%2F")
    answer = service.ask("PUT", target, value, {"Content-Type": content_type})
    assert answer.status in (200, 201)


def stored(service: AppServer, key: str) -> str:
    return service.ask("GET", "/v1/values/" + key.replace("/", "%2F")).body.decode()


def expect_stored(service: AppServer, key: str, value: str) -> None:
    """Wait until a key has this value. The page may show what it expects before it is stored."""
    poll(lambda: stored(service, key) == value, f"{key} is {value}")


def expect_missing(service: AppServer, key: str) -> None:
    """Wait until there is no such key."""
    poll(lambda: service.ask("GET", f"/get-value?key={key}").status == 404, f"{key} is gone")


def row(page: Page, name: str) -> Locator:
    """The row of a key or folder in the open list."""
    return page.get_by_role(
        "row", name=re.compile("^Select " + re.escape(name).replace("/", r"\/") + " ")
    )


def messages(page: Page) -> Locator:
    return page.get_by_role("region", name="Messages")


def undo(page: Page) -> None:
    """Undo the last deletion with the keyboard, once it can be undone."""
    expect(messages(page).get_by_role("button", name="Undo")).to_be_visible()
    page.keyboard.press("Control+z")


def test_first_view_tells_a_newcomer_what_to_type(service: AppServer, console: Open) -> None:
    page = console().open()
    expect(page.get_by_role("heading", name="No keys yet")).to_be_visible()
    command = page.get_by_role("region", name="Command that stores a value").inner_text()
    body = re.fullmatch(r"curl \S+/set-value -d '(.*)'", command)
    assert body and service.base_url.removeprefix("http://") in command
    assert service.ask("POST", "/set-value", body[1].encode()).status == 200
    expect(row(page, "hello")).to_be_visible()


def test_examples_can_be_added(service: AppServer, console: Open) -> None:
    service.ask("POST", "/delete-values", b'{"prefix": ""}')
    page = console().open()
    page.get_by_role("button", name="Add a few examples").click()
    expect(row(page, "user/")).to_be_visible()
    row(page, "flags/").click()
    expect(row(page, "checkout")).to_be_visible()
    expect(page).to_have_url(re.compile(r"#/t/default/p/flags%2F$"))
    page.go_back()
    expect(row(page, "user/")).to_be_visible()


def test_values_are_hidden_and_then_shown_exactly(service: AppServer, console: Open) -> None:
    put(service, "exact/json", EXACT)
    page = console().open("#/t/default/k/exact%2Fjson")
    expect(page.get_by_text("Hidden until you ask")).to_be_visible()
    assert "248480010225057793" not in page.content()
    page.get_by_role("button", name="Show value").click()
    code = page.get_by_role("region", name="Value of exact/json, JSON")
    expect(code).to_contain_text("248480010225057793")
    expect(code).to_contain_text("1.0")
    expect(code).to_contain_text(r"\u00e9")
    expect(page.locator(".read .chip")).to_have_text(re.compile("HIT|MISS"))
    code.get_by_role("button", name="Fold").nth(1).click(force=True)
    expect(code).to_contain_text("3 items")
    curl = page.get_by_label("Command that reads this value")
    expect(curl).to_have_text(re.compile(r"^curl \S+/v1/values/exact%2Fjson$"))
    page.get_by_role("button", name="Hide the value").click()
    expect(code).to_have_count(0)


def test_editing_keeps_what_was_not_edited(service: AppServer, console: Open) -> None:
    put(service, "exact/edit", EXACT)
    page = console().open("#/t/default/k/exact%2Fedit")
    page.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Value of exact/edit")
    editor.fill(editor.input_value().replace("[\n      3\n    ]", "true").replace("1.0", "1.0,"))
    expect(page.get_by_text("Line 3: a name in double quotes is expected")).to_be_visible()
    save = page.get_by_role("button", name="Save")
    expect(save).to_have_attribute("aria-disabled", "true")
    editor.fill(editor.input_value().replace("1.0,,", "1.0,"))
    expect(page.get_by_text("Valid JSON")).to_be_visible()
    page.keyboard.press("Control+s")
    expect(messages(page)).to_contain_text("Saved exact/edit, version")
    expect_stored(service, "exact/edit", EXACT.replace("[3]", "true"))


def test_new_key(service: AppServer, console: Open) -> None:
    put(service, "taken", "1")
    page = console().open("#/t/default/p/")
    row(page, "taken").wait_for()
    page.keyboard.press("n")
    key = page.get_by_role("textbox", name="Key", exact=True)
    key.fill("taken")
    expect(page.get_by_text("This key exists.")).to_be_visible()
    key.fill("x" * 1025)
    expect(page.get_by_text("1,025 bytes: at most 1,024.")).to_be_visible()
    key.fill("made/here")
    value = page.get_by_role("textbox", name="Value")
    value.fill("{'a'}")
    expect(page.get_by_text("a name in double quotes is expected")).to_be_visible()
    value.fill('{"a": 1.0}')
    page.get_by_role("button", name="In…").click()
    page.get_by_role("textbox", name="Time to live").fill("36h")
    page.keyboard.press("Control+s")
    expect(page.get_by_role("heading", name="made/here")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("in 1 d 12 h")
    expect_stored(service, "made/here", '{"a": 1.0}')


def test_delete_and_undo(service: AppServer, console: Open) -> None:
    put(service, "undo/one", EXACT)
    put(service, "undo/two", "2")
    page = console().open("#/t/default/k/undo%2Fone")
    page.get_by_role("button", name="Delete").click()
    expect(row(page, "one")).to_have_count(0)
    expect_missing(service, "undo/one")
    undo(page)
    expect(row(page, "one")).to_be_visible()
    expect_stored(service, "undo/one", EXACT)
    # Someone else takes the key before it is restored.
    row(page, "two").click()
    expect(page.get_by_role("heading", name="undo/two")).to_be_visible()
    page.get_by_role("button", name="Delete").wait_for()
    page.keyboard.press("Delete")
    expect(row(page, "two")).to_have_count(0)
    expect_missing(service, "undo/two")
    put(service, "undo/two", '"theirs"')
    page.get_by_role("button", name="Undo").last.click()
    expect(page.get_by_text("exists again, written by someone else")).to_be_visible()
    assert stored(service, "undo/two") == '"theirs"'


def test_two_people_change_one_value(service: AppServer, console: Open) -> None:
    put(service, "both/v", '{"plan": "team", "seats": 12}')
    mine, theirs = (console().open("#/t/default/k/both%2Fv/edit") for _ in range(2))
    my_editor = mine.get_by_role("textbox", name="Value of both/v")
    my_editor.fill(my_editor.input_value().replace("12", "25"))
    their_editor = theirs.get_by_role("textbox", name="Value of both/v")
    their_editor.fill(their_editor.input_value().replace("team", "starter"))
    theirs.get_by_role("button", name="Save").click()
    expect(
        mine.get_by_text("Someone else saved this value while you were editing.")
    ).to_be_visible()
    expect(mine.get_by_role("region", name="Stored value")).to_contain_text("starter")
    expect_stored(service, "both/v", '{"plan": "starter", "seats": 12}')
    # Both lines differ and stand together, so one arrow takes both; mine is typed again.
    mine.get_by_role("button", name="Put the stored lines from line 2 into my draft").click()
    draft = mine.get_by_role("textbox", name="Your draft")
    draft.fill(draft.input_value().replace("12", "26"))
    mine.get_by_role("button", name=re.compile("^Save mine over")).click()
    expect(messages(mine)).to_contain_text("Saved both/v, version")
    expect_stored(service, "both/v", '{"plan": "starter", "seats": 26}')


def test_changes_elsewhere_show_at_once(service: AppServer, console: Open) -> None:
    put(service, "live/a", '{"n": 1}')
    page = console().open("#/t/default/k/live%2Fa")
    page.get_by_role("button", name="Show value").click()
    code = page.get_by_role("region", name="Value of live/a")
    expect(code).to_contain_text('"n": 1')
    expect(page.locator(".live")).to_have_text("Live")
    put(service, "live/b", "[]")
    expect(row(page, "b")).to_contain_text("new")
    put(service, "live/a", '{"n": 2}')
    expect(code).to_contain_text('"n": 2')
    expect(page.locator(".ln.changed")).to_have_count(1)
    service.ask("DELETE", "/delete-value?key=live/a")
    expect(page.get_by_text(re.compile("This key was deleted at"))).to_be_visible()
    page.get_by_role("button", name="Store it again").click()
    expect_stored(service, "live/a", '{"n": 2}')
    expect(row(page, "a")).to_be_visible()


def test_bytes_images_and_text(service: AppServer, console: Open) -> None:
    put_raw(service, "kind/image", PNG, "image/png")
    put_raw(service, "kind/bytes", bytes(range(256)), "application/octet-stream")
    put_raw(service, "kind/text", b"one\ntwo", "text/plain")
    page = console().open("#/t/default/k/kind%2Fimage")
    page.get_by_role("checkbox", name="Show values from now on").click()
    image = page.get_by_role("img", name="Stored under kind/image")
    expect(page.get_by_text("1 × 1")).to_be_visible()
    assert (image.get_attribute("src") or "").startswith("blob:")
    row(page, "bytes").click()
    expect(page.get_by_role("region", name="Bytes of kind/bytes")).to_contain_text("000000f0")
    row(page, "text").click()
    expect(page.get_by_role("region", name="Value of kind/text, Text")).to_contain_text("two")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert Path(download.value.path()).read_bytes() == b"one\ntwo"


def test_counter(service: AppServer, console: Open) -> None:
    put(service, "count/visits", "12345678901234")
    page = console().open("#/t/default/k/count%2Fvisits")
    page.get_by_role("button", name="Show value").click()
    page.get_by_role("textbox", name="Step").fill("10")
    page.get_by_role("button", name="Plus 10").click()
    expect(page.get_by_text("12,345,678,901,244")).to_be_visible()
    page.get_by_role("button", name="Minus 10").click()
    expect(page.get_by_text("12,345,678,901,234")).to_be_visible()
    expect_stored(service, "count/visits", "12345678901234")


def test_rename_expiry_and_links(service: AppServer, console: Open) -> None:
    put(service, "name/old", EXACT)
    put(service, "name/other", "1")
    page = console().open("#/t/default/k/name%2Fold")
    page.get_by_role("button", name="Edit").wait_for()
    page.keyboard.press("F2")
    name = page.get_by_role("textbox", name="New key")
    name.fill("name/other")
    page.get_by_role("button", name="Rename").last.click()
    expect(page.get_by_text("That key exists.")).to_be_visible()
    name.fill("name/new")
    page.get_by_role("button", name="Rename").last.click()
    expect(page.get_by_role("heading", name="name/new")).to_be_visible()
    expect_stored(service, "name/new", EXACT)
    page.get_by_role("button", name="Change when it expires").wait_for()
    page.keyboard.press("t")
    page.get_by_role("textbox", name="Time to live").fill("2d")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.locator(".facts")).to_contain_text(re.compile("in (2 d|1 d 23 h)"))
    # A link opens what it shows, in another tab, too.
    again = console().open(page.url.partition("/#")[2].join(["#", ""]))
    expect(again.get_by_role("heading", name="name/new")).to_be_visible()


def test_selected_keys(service: AppServer, console: Open) -> None:
    for name in ("a", "b", "c", "d"):
        put(service, f"many/{name}", f'"{name}"')
    page = console().open("#/t/default/p/many%2F")
    for name in ("a", "c"):
        page.get_by_role("checkbox", name=f"Select {name}").check()
    bar = page.get_by_role("toolbar", name="2 selected keys")
    with page.expect_download() as download:
        bar.get_by_role("button", name="Export").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == ["a", "c"]
    bar.get_by_role("button", name="Delete").click()
    expect(row(page, "a")).to_have_count(0)
    expect(row(page, "b")).to_be_visible()
    undo(page)
    expect(row(page, "c")).to_be_visible()
    expect_stored(service, "many/a", '"a"')


def test_import_says_what_it_skipped(service: AppServer, console: Open, tmp_path: Path) -> None:
    put(service, "in/taken", '"old"')
    big = '{"key": "in/big", "value": {"n": [248480010225057793, 1.0]}, "id": "x", "version": 7}'
    file = tmp_path / "keys.ndjson"
    file.write_text(f'{big}\nnot json\n{{"key": "in/taken", "value": 2}}\n{{"value": 1}}\n')
    page = console().open("#/t/default/p/in%2F")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import, export, upload").click()
        page.get_by_role("menuitem", name="Import NDJSON…").click()
    chooser.value.set_files(file)
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = page.get_by_role("dialog", name="Import finished")
    expect(dialog).to_contain_text("3 lines skipped")
    for reason in ("Line 2: is not JSON", "Line 3: the key exists", "Line 4: has no key"):
        expect(dialog).to_contain_text(reason)
    dialog.get_by_role("button", name="Done").click()
    expect(row(page, "big")).to_be_visible()
    expect_stored(service, "in/big", '{"n": [248480010225057793, 1.0]}')
    assert stored(service, "in/taken") == '"old"'


def test_files_are_stored_as_they_are(service: AppServer, console: Open, tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    page = console().open("#/t/default/p/count%2F")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import, export, upload").click()
        page.get_by_role("menuitem", name="Upload files…").click()
    chooser.value.set_files(tmp_path / "dot.png")
    page.get_by_role("button", name="Store").click()
    expect(row(page, "dot.png")).to_contain_text("image")
    poll(lambda: service.ask("GET", "/v1/values/count%2Fdot.png").status == 200, "it is stored")
    answer = service.ask("GET", "/v1/values/count%2Fdot.png")
    assert (answer.body, answer.headers["Content-Type"]) == (PNG, "image/png")


def test_folders_are_deleted_after_their_count_is_typed(service: AppServer, console: Open) -> None:
    for key in ("test/1", "test/2", "test2/1"):
        put(service, key, "1")
    page = console().open("#/t/default/p/test%2F")
    page.get_by_role("button", name="Delete all 2…").click()
    dialog = page.get_by_role("dialog", name="Delete everything here?")
    button = dialog.get_by_role("button", name="Delete 2 keys")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox", name="Type 2 to confirm").fill("2")
    button.click()
    expect(page.get_by_text("Nothing under test/.")).to_be_visible()
    assert service.ask("GET", "/get-value?key=test2/1").status == 200


def test_everything_with_the_keyboard(service: AppServer, console: Open) -> None:
    for name in ("alpha", "beta", "gamma"):
        put(service, f"keyboard/{name}", f'{{"name": "{name}"}}')
    page = console().open("#/t/default/p/keyboard%2F")
    row(page, "alpha").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("b")
    expect(row(page, "alpha")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(row(page, "alpha")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(row(page, "beta")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="keyboard/beta")).to_be_visible()
    page.keyboard.press("h")
    code = page.get_by_role("region", name="Value of keyboard/beta")
    expect(code).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(code).to_contain_text("1 item")
    page.keyboard.press("e")
    expect(page.get_by_role("textbox", name="Value of keyboard/beta")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Edit")).to_be_visible()
    page.keyboard.press("Escape")
    expect(row(page, "beta")).to_be_focused()
    page.keyboard.press("Backspace")
    expect(row(page, "keyboard/")).to_be_visible()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    find = page.get_by_role("combobox", name="Find a key or a command")
    find.fill("keyboard/g")
    expect(page.get_by_role("option", name="keyboard/gamma")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="keyboard/gamma")).to_be_visible()
