// What is being written and not yet saved. A draft stays, per key, until it is saved or discarded.

import { compact, format, problemOf, spacingOf, textOf } from "../lib/json";
import { session } from "./session.svelte";
import { ui, type Draft } from "./ui.svelte";
import type { Shown } from "./value.svelte";

function draftName(key: string): string {
  return `${session.tenant}\n${key}`;
}

/**
 * A value as one edits it. JSON that is written on one line is broken into lines, and goes back onto
 * one when it is saved; JSON with line breaks of its own is edited as it is.
 */
export function editable(shown: Shown): Pick<Draft, "text" | "spacing"> {
  const text = shown.text ?? "";
  if (shown.kind !== "json" || text.includes("\n")) return { text, spacing: null };
  const spacing = spacingOf(text);
  return spacing ? { text: textOf(format(text)), spacing } : { text, spacing: null };
}

export function draftOf(key: string): Draft | null {
  return ui.drafts.get(draftName(key)) ?? null;
}

/** Begin to edit what is shown. */
export function beginDraft(key: string, shown: Shown): Draft {
  const { text, spacing } = editable(shown);
  const draft: Draft = {
    text,
    spacing,
    base: text,
    kind: shown.kind === "json" ? "json" : "text",
    contentType: shown.raw.contentType,
    version: shown.raw.version,
  };
  keepDraft(key, draft);
  return draft;
}

export function keepDraft(key: string, draft: Draft): void {
  ui.drafts = new Map(ui.drafts).set(draftName(key), draft);
}

export function discardDraft(key: string): void {
  const rest = new Map(ui.drafts);
  rest.delete(draftName(key));
  ui.drafts = rest;
}

/** The text to store. */
export function textToStore(draft: Draft): string {
  if (draft.kind !== "json" || draft.spacing === null) return draft.text;
  return problemOf(draft.text) ? draft.text : compact(draft.text, draft.spacing);
}
