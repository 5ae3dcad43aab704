// Writes. A value travels as the text it is: it is spliced into the request, never encoded again.

import { named } from "../lib/keys";
import { count, plural } from "../lib/format";
import { kindOf } from "../lib/types";
import { api, type Entry, type Meta, Problem, statusOf, Unreachable, type Written } from "./api";
import { live } from "./live.svelte";
import { session } from "./session.svelte";
import { ui } from "./ui.svelte";

export type Expiry =
  | { choice: "keep" }
  | { choice: "never" }
  | { choice: "in"; seconds: number }
  | { choice: "at"; unixSeconds: number };

export interface Content {
  kind: "json" | "text";
  text: string;
  contentType: string;
}

/** Undo keeps copies in memory, so it has limits. */
const MAX_UNDO_KEYS = 1000;
const MAX_UNDO_BYTES = 8 << 20;
const PARALLEL = 6;

function expiryFields(expiry: Expiry): string {
  switch (expiry.choice) {
    case "keep":
      return ', "keep_ttl": true';
    case "never":
      return "";
    case "in":
      return `, "ttl": ${expiry.seconds}`;
    case "at":
      return `, "expires_at": ${expiry.unixSeconds}`;
  }
}

/** Store a value, if the stored version is still this one; null: if there is none. */
export function store(
  key: string,
  content: Content,
  expiry: Expiry,
  version: number | null,
): Promise<Written> {
  const value =
    content.kind === "json"
      ? content.text
      : `${JSON.stringify(content.text)}, "encoding": "utf-8", "content_type": ${JSON.stringify(content.contentType)}`;
  return api.post<Written>(
    "set-value",
    `{"key": ${JSON.stringify(key)}, "value": ${value}${expiryFields(expiry)}}`,
    version === null ? { "If-None-Match": "*" } : { "If-Match": `"${version}"` },
  );
}

export function touch(key: string, expiry: Expiry): Promise<Written> {
  const field = expiry.choice === "never" ? ', "expires_at": null' : expiryFields(expiry);
  return api.post<Written>("touch-value", `{"key": ${JSON.stringify(key)}${field}}`);
}

export function rename(key: string, to: string, copy: boolean): Promise<Written> {
  return api.post<Written>("rename-value", JSON.stringify({ key, to, ...(copy ? { copy } : {}) }));
}

export function increment(key: string, by: string): Promise<Written & { value: unknown }> {
  return api.post("increment-value", `{"key": ${JSON.stringify(key)}, "by": ${by}}`);
}

/** Store bytes as they are. */
export function storeBytes(
  key: string,
  body: BodyInit,
  contentType: string,
  { expiresAt = null, replace = false }: { expiresAt?: number | null; replace?: boolean } = {},
  signal?: AbortSignal,
): Promise<Written> {
  return api.put(key, body, contentType || "application/octet-stream", {
    query: { expires_at: expiresAt },
    headers: replace ? {} : { "If-None-Match": "*" },
    ...(signal ? { signal } : {}),
  });
}

/** Why something could not be done, for a person. */
export function reasonOf(error: unknown): string {
  if (error instanceof Unreachable)
    return live.status === "lost"
      ? "The connection is lost. Nothing is sent by itself later."
      : "The service does not answer.";
  if (!(error instanceof Problem)) throw error;
  switch (error.type) {
    case "quota-exceeded": {
      const tenant = session.tenants.find((each) => each.name === session.tenant);
      const entries = tenant?.max_entries;
      const size = error.limit === "max_entries" && entries ? ` (${count(entries)} entries)` : "";
      return `${session.tenant} is full${size}.`;
    }
    case "disk-full":
      return "The disk of the service is full.";
    case "rate-limited":
      return `Too many requests for ${session.tenant}. Try again in ${plural(error.retryAfter ?? 1, "second")}.`;
    case "forbidden":
      return "Your token does not allow it.";
    default:
      return (
        error.detail.charAt(0).toUpperCase() +
        error.detail.slice(1) +
        (/[.…]$/.test(error.detail) ? "" : ".")
      );
  }
}

/** Run a task for each item, a few at a time. */
export async function each<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
  parallel = PARALLEL,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: Math.min(parallel, items.length) }, worker));
}

/** Whether deleting these can be undone. */
export function undoable(metas: readonly Meta[]): boolean {
  return (
    metas.length <= MAX_UNDO_KEYS &&
    metas.reduce((sum, meta) => sum + meta.size, 0) <= MAX_UNDO_BYTES
  );
}

/** Delete keys, and keep their entries for an undo. False if that failed. */
export async function deleteWithUndo(metas: readonly Meta[]): Promise<boolean> {
  let removed: Entry[];
  try {
    removed = await api.remove(metas.map(({ key }) => key));
  } catch (error) {
    ui.fail(`Not deleted: ${reasonOf(error)}`);
    return false;
  }
  if (!removed.length) {
    ui.say({ kind: "info", text: "It was already gone." });
    return true;
  }
  const one = removed.length === 1 ? removed[0] : undefined;
  const what = one ? named(one.key) : plural(removed.length, "key");
  ui.announce(`Deleted ${what}. Undo with Control Z.`);
  ui.say({
    kind: "info",
    text: one ? "Deleted" : `Deleted ${what}`,
    ...(one ? { key: one.key } : {}),
    action: { label: "Undo", hint: "Ctrl Z", run: () => void restore(removed) },
  });
  return true;
}

async function restore(entries: readonly Entry[]): Promise<void> {
  let restored = 0;
  const taken: string[] = [];
  try {
    await each(entries, async (entry) => {
      try {
        await restoreOne(entry);
        restored++;
      } catch (error) {
        if (statusOf(error) === 412) taken.push(entry.key);
        else throw error;
      }
    });
  } catch (error) {
    ui.fail(`Not restored: ${reasonOf(error)}`, {
      label: "Undo",
      run: () => void restore(entries),
    });
    return;
  }
  if (restored) {
    const text =
      entries.length === 1
        ? "Restored, with a new version."
        : `Restored ${plural(restored, "key")}, with new versions.`;
    ui.say({ kind: "ok", text });
    ui.announce(text);
  }
  for (const key of taken.slice(0, 3))
    ui.fail(`${named(key)} exists again, written by someone else. Not restored.`);
}

async function restoreOne({ key, bytes, contentType, expiresAt }: Entry): Promise<void> {
  if (expiresAt !== null && expiresAt <= Date.now() / 1000) return;
  if (kindOf(contentType) === "json" && (key === "." || key === ".."))
    await store(
      key,
      { kind: "json", text: new TextDecoder().decode(bytes), contentType },
      expiresAt === null ? { choice: "never" } : { choice: "at", unixSeconds: expiresAt },
      null,
    );
  else await storeBytes(key, bytes, contentType, { expiresAt });
}

/** Everything below a prefix, without undo. */
export async function deletePrefix(prefix: string): Promise<number> {
  const answer = await api.post<{ deleted: number }>("delete-values", JSON.stringify({ prefix }));
  return answer.deleted;
}
