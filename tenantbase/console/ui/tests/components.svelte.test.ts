// @vitest-environment jsdom
// Components that decide something, in a document without a browser.

import { flushSync, mount, unmount, type Component } from "svelte";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import CodeArea from "../src/components/CodeArea.svelte";
import ExpiryInput, { emptyExpiry } from "../src/components/ExpiryInput.svelte";
import Toasts from "../src/components/Toasts.svelte";
import Usage from "../src/components/Usage.svelte";
import { ui } from "../src/state/ui.svelte";

let mounted: Record<string, unknown> | null = null;

function show<Props extends Record<string, unknown>>(part: Component<Props>, props: Props): void {
  mounted = mount(part as Component<Record<string, unknown>>, { target: document.body, props });
  flushSync();
}

function find<Found extends HTMLElement>(selector: string): Found {
  const found = document.querySelector<Found>(selector);
  if (!found) throw new Error(`There is no ${selector} in ${document.body.innerHTML}`);
  return found;
}

function write(selector: string, text: string): void {
  const input = find<HTMLInputElement>(selector);
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  flushSync();
}

function press(button: string): void {
  const found = [...document.querySelectorAll("button")].find((each) =>
    each.textContent.startsWith(button),
  );
  if (!found) throw new Error(`There is no button ${button}`);
  found.click();
  flushSync();
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(async () => {
  if (mounted) await unmount(mounted);
  mounted = null;
  ui.messages = [];
  document.body.replaceChildren();
  vi.useRealTimers();
});

test.each([
  ["36h", 129_600],
  ["1d 12h", 129_600],
  ["soon", null],
  ["0s", null],
])("a time to live of %s", (text, seconds) => {
  const props = $state({ form: emptyExpiry("in"), expiry: null });
  show(ExpiryInput, props);
  write("[aria-label='Time to live']", text);
  expect(props.expiry).toEqual(seconds === null ? null : { choice: "in", seconds });
  const invalid = find("[aria-label='Time to live']").getAttribute("aria-invalid");
  expect(invalid).toBe(String(seconds === null));
});

test("a moment of expiry lies ahead, and the first one offered does", () => {
  const props = $state({ form: emptyExpiry("never"), expiry: null });
  show(ExpiryInput, props);
  expect(props.expiry).toEqual({ choice: "never" });
  press("At");
  expect(props.expiry).toMatchObject({ choice: "at" });
  write("[aria-label='Moment of expiry']", "2001-01-01T00:00");
  expect(props.expiry).toBe(null);
  expect(document.body.textContent).toContain("That is in the past.");
});

test.each([
  [undefined, false],
  [null, true],
])("an expiry is kept only where there is one to keep: %s", (current, kept) => {
  const props = $state({ form: emptyExpiry("keep"), expiry: null, current });
  show(ExpiryInput, props);
  expect(document.body.textContent.includes("Keep: never")).toBe(kept);
});

test.each([
  [0, "0 %"],
  [79, "79 %"],
  [80, "80 %, nearly full"],
  [99, "99 %, nearly full"],
  [100, "100 %, full"],
  [130, "100 %, full"],
])("%d of 100 entries", (used, words) => {
  show(Usage, { what: "Entries", used, limit: 100, show: String });
  expect(find(".pct").textContent).toBe(words);
  expect(find("[role=meter]").getAttribute("aria-valuetext")).toBe(`${used} of 100`);
});

test("without a limit there is no bar", () => {
  show(Usage, { what: "Entries", used: 7, limit: null, show: String });
  expect(document.querySelector("[role=meter]")).toBe(null);
  expect(document.body.textContent).toContain("no limit");
});

test("a limit of nothing is full", () => {
  show(Usage, { what: "Entries", used: 0, limit: 0, show: String });
  expect(find(".pct").textContent).toBe("100 %, full");
});

function texts(): string[] {
  return [...document.querySelectorAll(".toast p")].map((each) => each.textContent.trim());
}

function wait(milliseconds: number): void {
  vi.advanceTimersByTime(milliseconds);
  flushSync();
}

test("a message goes by itself, one with Undo later, and an error stays", () => {
  show(Toasts, {});
  ui.say({ kind: "ok", text: "Saved" });
  ui.say({ kind: "info", text: "Deleted", action: { label: "Undo", run: () => undefined } });
  ui.fail("Not saved");
  flushSync();
  expect(texts()).toEqual(["Saved", "Deleted", "Not saved"]);
  wait(4200);
  expect(texts()).toEqual(["Deleted", "Not saved"]);
  wait(6000);
  expect(texts()).toEqual(["Not saved"]);
  wait(600_000);
  expect(texts()).toEqual(["Not saved"]);
});

test("a message that one points at waits", () => {
  show(Toasts, {});
  ui.say({ kind: "ok", text: "Saved" });
  flushSync();
  find(".toasts").dispatchEvent(new MouseEvent("mouseenter"));
  wait(60_000);
  expect(texts()).toEqual(["Saved"]);
  find(".toasts").dispatchEvent(new MouseEvent("mouseleave"));
  wait(4200);
  expect(texts()).toEqual([]);
});

test("at most three messages, the newest ones", () => {
  show(Toasts, {});
  for (const text of ["1", "2", "3", "4"]) ui.say({ kind: "ok", text });
  flushSync();
  expect(texts()).toEqual(["2", "3", "4"]);
});

function key(name: string, shiftKey = false): boolean {
  const event = new KeyboardEvent("keydown", {
    key: name,
    shiftKey,
    bubbles: true,
    cancelable: true,
  });
  find("textarea").dispatchEvent(event);
  flushSync();
  return event.defaultPrevented;
}

test("Tab indents, Shift Tab does the opposite, and Esc lets Tab leave", () => {
  const props = $state({ value: "{\n}", label: "Value", json: true });
  show(CodeArea, props);
  find<HTMLTextAreaElement>("textarea").setSelectionRange(2, 2);
  expect(key("Tab")).toBe(true);
  expect(props.value).toBe("{\n  }");
  expect(key("Tab", true)).toBe(true);
  expect(props.value).toBe("{\n}");
  key("Escape");
  expect(key("Tab")).toBe(false);
  expect(props.value).toBe("{\n}");
  key("x");
  expect(key("Tab")).toBe(true);
});
