// Keys that work wherever the focus is, except in a field.

import { router } from "../state/router.svelte";
import { session } from "../state/session.svelte";
import { ui } from "../state/ui.svelte";
import { workspace } from "../state/workspace.svelte";
import { commands } from "./commands.svelte";
import { places } from "./places";

const SEQUENCE_MILLISECONDS = 1000;
let waiting = 0;

function isField(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      target instanceof HTMLTextAreaElement ||
      target instanceof HTMLSelectElement ||
      (target instanceof HTMLInputElement && target.type !== "checkbox"))
  );
}

function go(key: string): boolean {
  const place = places().find((each) => each.key === key);
  if (place) router.go(place.route);
  return place !== undefined;
}

function withControl(event: KeyboardEvent): boolean {
  switch (event.key.toLowerCase()) {
    case "k":
      ui.palette = !ui.palette;
      return true;
    case "s":
      if (!commands.save) return false;
      commands.save();
      return true;
    case "z":
      return !isField(event.target) && ui.undo();
    default:
      return false;
  }
}

function escape(): boolean {
  const list = workspace.list;
  if (list && list.selected.size) list.clearSelection();
  else if (workspace.route?.mode === "new" || workspace.open) workspace.closeValue();
  else if (workspace.route?.filter) router.change({ filter: "" }, { replace: true });
  else return false;
  return true;
}

function single(event: KeyboardEvent): boolean {
  const open = workspace.open;
  const editing = workspace.route?.mode !== "view";
  switch (event.key) {
    case "/":
      workspace.focusFilter();
      return true;
    case "?":
      ui.help = true;
      return true;
    case "n":
      workspace.newKey();
      return true;
    case "g":
      waiting = Date.now();
      return true;
  }
  if (!open || editing) return false;
  switch (event.key) {
    case "e":
      commands.value?.edit();
      return true;
    case "c":
      commands.value?.copy();
      return true;
    case "h":
      if (open.look === "shown") open.hide();
      else void commands.value?.show();
      return true;
    case "t":
      if (session.mayWrite)
        workspace.dialog = { kind: "expiry", chosen: workspace.chosen([open.key]) };
      return true;
    case "r":
      if (open.look === "shown") void open.read(true);
      return true;
    case "+":
      void commands.counter?.add("");
      return commands.counter !== null;
    case "-":
      void commands.counter?.add("-");
      return commands.counter !== null;
    default:
      return false;
  }
}

export function shortcuts(event: KeyboardEvent): void {
  if (event.defaultPrevented || session.status !== "ready" || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    if (withControl(event)) event.preventDefault();
    return;
  }
  if (ui.palette || ui.help || workspace.dialog || event.altKey) return;
  if (event.key === "Escape" && !isField(event.target)) {
    if (escape()) event.preventDefault();
    return;
  }
  if (isField(event.target)) return;
  let done = false;
  if (event.key === "Delete") {
    void workspace.remove();
    done = true;
  } else if (event.key === "F2" && session.mayWrite && (workspace.open ?? workspace.focus)) {
    const key = workspace.open?.key ?? workspace.focus ?? "";
    if (!workspace.isFolder(key)) workspace.dialog = { kind: "rename", key };
    done = true;
  } else if (ui.singleKeys) {
    const sequence = Date.now() - waiting < SEQUENCE_MILLISECONDS;
    waiting = 0;
    done = (sequence && go(event.key)) || single(event);
  }
  if (done) event.preventDefault();
}
