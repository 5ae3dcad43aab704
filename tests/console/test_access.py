"""The console without a mouse, enlarged, in high contrast and without motion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.app_server import AppServer
from tests.console.browser import Console, check
from tests.console.entries import put, row
from tests.servers import poll

pytestmark = pytest.mark.integration

Open = Callable[..., Console]

# A window of 1280 by 800 at 200 %: half as many pixels of CSS, each twice as large.
ENLARGED = {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2}

FOCUS = """() => {
    const at = document.activeElement;
    const drawn = [at, at.parentElement].some(each => {
        const style = getComputedStyle(each);
        return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1)
            || style.boxShadow !== 'none';
    }) || getComputedStyle(at, '::after').content !== 'none';
    const box = at.getBoundingClientRect();
    const inside = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
    const label = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent;
    return {name: label.trim().replace(/\\s+/g, ' '), drawn, inside, body: at === document.body};
}"""


@pytest.fixture
def filled(service: AppServer) -> Iterator[AppServer]:
    for name in ("alpha", "beta"):
        put(service, f"reach/{name}", b'{"n": [1, {"m": null}], "s": "text"}')
    yield service
    service.ask("POST", "/delete-values", b'{"prefix": "reach/"}')


def tab_through(page: Page) -> list[str]:
    """What Tab reaches, from the beginning of the page to its end; each can be seen to have focus."""
    names = [page.evaluate(FOCUS)["name"]]
    while len(names) < 60:
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["body"] or focus["name"] == names[0]:
            return names
        assert focus["drawn"] and focus["inside"], focus
        names.append(focus["name"])
    raise AssertionError(f"Tab does not leave {names[-1]}")


def test_tab_reaches_everything_in_the_order_of_reading(filled: AppServer, console: Open) -> None:
    page = console().open("#/t/default/k/reach%2Falpha")
    page.get_by_role("button", name="Show value").click()
    page.get_by_role("region", name="Value of reach/alpha").wait_for()
    page.get_by_role("link", name="Skip to content").focus()
    names = tab_through(page)
    expected = [
        "Skip to content",
        "tenantbase, keys",
        "Tenant: default",
        "Find a key or a command",
        "default",  # the path
        "Filter by prefix",
        "Folders",
        "alpha",  # one stop for the whole list
        "Width of the list",
        "Copy the key",
        "Edit",
        "Delete",
        "Value of reach/alpha",  # one stop for the whole value
        "Command that reads this value",
    ]
    found = [
        next((at for at, name in enumerate(names) if name.startswith(each)), -1)
        for each in expected
    ]
    assert -1 not in found, dict(zip(expected, found, strict=True))
    assert found == sorted(found)
    assert not [name for name in names if name.startswith("beta")]


def test_a_key_is_made_and_deleted_without_a_mouse(filled: AppServer, console: Open) -> None:
    page = console().open("#/t/default/p/reach%2F")
    row(page, "alpha").wait_for()
    page.keyboard.press("n")
    expect(page.get_by_role("textbox", name="Key", exact=True)).to_be_focused()
    page.keyboard.type("gamma")
    while not page.get_by_role("textbox", name="Value").evaluate(
        "at => at === document.activeElement"
    ):
        page.keyboard.press("Tab")
    page.keyboard.type('{"made": true}')
    page.keyboard.press("Control+s")
    expect(row(page, "gamma")).to_be_visible()
    expect(row(page, "gamma")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.get_by_role("row", name=re.compile("^Select gamma"))).to_have_count(0)
    expect(row(page, "beta")).to_be_focused()
    page.keyboard.press("Control+z")
    expect(row(page, "gamma")).to_be_visible()


def test_a_dialog_keeps_the_focus_and_gives_it_back(filled: AppServer, console: Open) -> None:
    page = console().open("#/t/default/k/reach%2Falpha")
    page.get_by_role("button", name="Change when it expires").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="When it expires")
    dialog.wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        # The browser's own bar has its turn between the last and the first of a dialog.
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Change when it expires")).to_be_focused()


def test_nothing_is_cut_off_at_twice_the_size(filled: AppServer, console: Open) -> None:
    page = console(**ENLARGED).open("#/t/default/p/reach%2F")

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 640
        check(page)

    row(page, "alpha").wait_for()
    fits()
    # Where the value takes the place of the list, focus goes there and comes back.
    row(page, "alpha").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Back to the list")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row(page, "alpha")).to_be_focused()
    row(page, "alpha").click()
    page.get_by_role("button", name="Show value").click()
    page.get_by_role("region", name="Value of reach/alpha").wait_for()
    fits()
    page.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Value of reach/alpha")
    editor.fill('{"n": 2}')
    # There is room for several lines of it, however little is left of the window.
    frame = page.locator(".editing").bounding_box()
    assert frame and frame["height"] >= 150
    fits()
    save = page.get_by_role("button", name="Save")
    save.scroll_into_view_if_needed()
    save.click()
    expect(page.get_by_text("Saved reach/alpha, version")).to_be_visible()
    for address, heading in (("#/tenants", "Tenants"), ("#/health", "Health")):
        page.goto(f"{filled.base_url}/{address}")
        page.get_by_role("heading", name=heading, exact=True).wait_for()
        fits()
    page.goto(f"{filled.base_url}/#/t/default/new")
    page.get_by_role("textbox", name="Key", exact=True).fill("reach/new")
    page.get_by_role("textbox", name="Value").fill("1")
    fits()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="reach/new")).to_be_visible()


def test_high_contrast_keeps_every_edge(filled: AppServer, console: Open) -> None:
    page = console(forced_colors="active").open("#/t/default/k/reach%2Falpha")
    page.get_by_role("button", name="Show value").click()
    page.get_by_role("region", name="Value of reach/alpha").wait_for()
    bare = page.evaluate("""() => [...document.querySelectorAll('button.btn, input.input')]
            .filter(each => each.checkVisibility())
            .filter(each => parseFloat(getComputedStyle(each).borderTopWidth) === 0)
            .map(each => each.outerHTML)""")
    assert bare == []
    # What is open, pressed or in focus differs by more than a tint, which such a mode takes away.
    style = "at => [getComputedStyle(at).outlineStyle, getComputedStyle(at).backgroundColor]"
    chosen, other = row(page, "alpha").evaluate(style), row(page, "beta").evaluate(style)
    assert (chosen[0], other[0]) == ("solid", "none")
    folders, levels = (
        page.get_by_role("button", name=name).evaluate(style) for name in ("Folders", "All levels")
    )
    assert folders[1] != levels[1]
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value of reach/alpha").press("ArrowDown")
    assert page.locator(".editing").evaluate(style)[0] == "solid"
    check(page)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_motion_is_left_out_on_request(filled: AppServer, console: Open, motion: str) -> None:
    page = console(reduced_motion=motion).open("#/t/default/p/reach%2F")
    row(page, "alpha").wait_for()
    page.evaluate("""() => {
            window.moved = [];
            for (const kind of ['animationstart', 'transitionrun'])
                addEventListener(kind, event => window.moved.push(event.type), true);
        }""")
    put(filled, "reach/alpha", b"2")
    # The word and the bar say it in any case.
    expect(row(page, "alpha")).to_contain_text("changed")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Import, export, upload").click()
    page.get_by_role("menuitem").first.wait_for()
    page.get_by_role("menuitem").first.hover()
    longest = page.evaluate("""() => Math.max(0, ...document.getAnimations()
            .map(each => Number(each.effect.getComputedTiming().endTime)))""")
    if motion == "reduce":
        assert longest == 0
    else:
        poll(lambda: page.evaluate("window.moved.length") > 0, "it moves")
