// The open value: what is known of it, and, once asked for, what it holds.

import { diff } from "../lib/diff";
import { format, textOf, type Line } from "../lib/json";
import { named } from "../lib/keys";
import { kindOf, type Kind } from "../lib/types";
import { api, type Meta, type RawValue, statusOf, Stopped } from "./api";
import type { Change } from "./live.svelte";
import { session } from "./session.svelte";
import { ui } from "./ui.svelte";
import { reasonOf } from "./writing";

/** Larger values are shown only when asked for again, and then only their beginning. */
export const LARGE_BYTES = 1 << 20;
const BEGINNING_BYTES = 256 << 10;
/** More lines than this are shown as plain text: nobody folds them, and the page must stay quick. */
const MAX_FORMATTED_BYTES = 512 << 10;

export type Look = "hidden" | "loading" | "shown" | "large" | "absent" | "failed" | "forbidden";

export interface Shown {
  raw: RawValue;
  kind: Kind;
  /** The value as text; null if it is bytes. */
  text: string | null;
  /** Formatted lines, if it is JSON that is small enough. */
  lines: Line[] | null;
  /** Only the beginning of the value. */
  partial: boolean;
  readAt: number;
}

export interface Gone {
  how: "deleted" | "expired";
  at: number;
}

function decode(bytes: Uint8Array, partial: boolean): string | null {
  try {
    // A cut text may end within a character.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, {
      stream: partial,
    });
  } catch {
    return null;
  }
}

/** What to show of some bytes. */
export function interpret(raw: RawValue): Shown {
  const partial = raw.bytes.length < raw.size;
  let kind = kindOf(raw.contentType);
  const text = kind === "json" || kind === "text" ? decode(raw.bytes, partial) : null;
  if (text === null && kind !== "image") kind = "bytes";
  let lines: Line[] | null = null;
  if (kind === "json" && text !== null && !partial && raw.bytes.length <= MAX_FORMATTED_BYTES)
    try {
      lines = format(text);
    } catch {
      // Labelled as JSON, but it is not: shown as the text that it is.
      kind = "text";
    }
  return { raw, kind, text, lines, partial, readAt: Date.now() / 1000 };
}

export class OpenValue {
  look = $state<Look>("loading");
  meta = $state.raw<Meta | null>(null);
  shown = $state.raw<Shown | null>(null);
  problem = $state<string | null>(null);
  gone = $state.raw<Gone | null>(null);
  /** Lines that the last change made, counted from 0. */
  changed = $state.raw<ReadonlySet<number>>(new Set());
  reading = $state(false);
  #abort = new AbortController();
  #reading = new AbortController();

  constructor(
    readonly key: string,
    known: Meta | null,
  ) {
    if (known) this.#know(known);
    else void this.refresh();
  }

  close(): void {
    this.#abort.abort();
  }

  /** Give up what is being read, until someone asks for it again. */
  stop(): void {
    this.#reading.abort(new Stopped("You stopped it."));
  }

  /** For one read, which ends with this value or before. */
  #signal(): AbortSignal {
    this.#reading = new AbortController();
    return AbortSignal.any([this.#abort.signal, this.#reading.signal]);
  }

  get kind(): Kind {
    return this.shown?.kind ?? kindOf(this.meta?.content_type ?? "");
  }

  #know(meta: Meta): void {
    this.meta = meta;
    this.gone = null;
    if (this.look === "hidden" || this.look === "shown" || this.look === "large") return;
    this.look = "hidden";
    if (ui.showValues) void this.show();
  }

  /** Read what is known of the key. */
  async refresh(): Promise<void> {
    try {
      const meta = await api.meta(this.key, this.#signal());
      if (meta) this.#know(meta);
      else if (this.meta) this.gone ??= { how: "deleted", at: Date.now() / 1000 };
      else this.look = "absent";
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (!(error instanceof Error)) throw error;
    if (statusOf(error) === 404) {
      if (this.shown) this.gone ??= { how: "deleted", at: Date.now() / 1000 };
      else this.look = "absent";
      return;
    }
    this.problem = error instanceof Stopped ? error.message : reasonOf(error);
    if (!this.shown) this.look = statusOf(error) === 403 ? "forbidden" : "failed";
    else ui.fail(`Not read: ${this.problem}`);
  }

  /** Show the value: read it, unless it is so large that one is asked first. */
  async show({ fresh = false, beginning = false } = {}): Promise<void> {
    if ((this.meta?.size ?? 0) > LARGE_BYTES && !beginning && !this.shown?.partial) {
      this.look = "large";
      return;
    }
    await this.read(fresh);
  }

  hide(): void {
    if (this.look === "shown") this.look = "hidden";
    this.shown = null;
    this.changed = new Set();
  }

  async read(fresh = false): Promise<void> {
    const before = this.shown;
    const large = (this.meta?.size ?? 0) > LARGE_BYTES;
    this.reading = true;
    if (!before) this.look = "loading";
    try {
      const raw = await api.read(this.key, {
        ...(large ? { first: BEGINNING_BYTES } : {}),
        fresh,
        signal: this.#signal(),
      });
      const shown = interpret(raw);
      this.changed = changedLines(before, shown);
      this.shown = shown;
      this.look = "shown";
      this.problem = null;
      this.gone = null;
      if (this.meta && this.meta.version <= raw.version)
        this.meta = {
          ...this.meta,
          version: raw.version,
          size: raw.size,
          content_type: raw.contentType,
        };
      if (raw.cache === "BYPASS" && !fresh) void session.checkHealth();
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#failed(error);
    } finally {
      this.reading = false;
    }
  }

  /** The value's bytes, whole, whether it is shown or not. */
  async whole(): Promise<RawValue> {
    if (this.shown && !this.shown.partial && this.shown.raw.version === this.meta?.version)
      return this.shown.raw;
    return await api.read(this.key);
  }

  /** A change that someone made, perhaps we. */
  apply(change: Change): void {
    if (change.key !== this.key) return;
    if (change.kind !== "set") {
      if (this.meta && this.meta.version >= change.version) return;
      this.gone = {
        how: change.kind === "expire" ? "expired" : "deleted",
        at: Date.now() / 1000,
      };
      ui.announce(
        `${named(this.key)} was ${this.gone.how === "expired" ? "gone: it expired" : "deleted"}.`,
      );
      return;
    }
    if (this.meta && this.meta.version >= change.version && !this.gone) return;
    const { version, size, content_type, expires_at } = change;
    this.#know({
      key: this.key,
      version,
      size: size ?? this.meta?.size ?? 0,
      content_type: content_type ?? this.meta?.content_type ?? "",
      expires_at: expires_at ?? null,
    });
    if (this.look === "shown") void this.read();
    if (this.look === "absent") void this.refresh();
  }

  /** After a write of our own. */
  wrote(version: number, expiresAt: number | null): void {
    if (this.meta) this.meta = { ...this.meta, version, expires_at: expiresAt };
  }
}

/** The lines of the new value that the old one does not have. */
function changedLines(before: Shown | null, after: Shown): ReadonlySet<number> {
  const changed = new Set<number>();
  if (!before?.lines || !after.lines || before.raw.version === after.raw.version) return changed;
  const left = textOf(before.lines).split("\n");
  const right = textOf(after.lines).split("\n");
  for (const hunk of diff(left, right))
    for (let line = hunk.rightFrom; line < hunk.rightTo; line++) changed.add(line);
  return changed;
}
