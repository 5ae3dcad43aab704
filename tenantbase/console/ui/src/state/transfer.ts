// Import and export as NDJSON, and downloads. Lines are streamed; values stay the text they are.

import { member } from "../lib/json";
import { LineSplitter } from "../lib/streams";
import { byteLength } from "../lib/keys";
import { api, Problem } from "./api";
import { each } from "./writing";

export type Existing = "skip" | "replace" | "stop";

export interface Progress {
  lines: number;
  bytes: number;
  total: number | null;
  skipped: { line: number; reason: string }[];
  skippedCount: number;
}

const BATCH_LINES = 200;
const BATCH_BYTES = 512 << 10;
const SHOWN_SKIPS = 100;
const NDJSON = "application/x-ndjson";

/** Hand a file to the person. Its type never lets a browser open it. */
export function download(name: string, parts: BlobPart[]): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The entries of keys and folders, one a line, whole. */
export async function exportLines(
  targets: readonly { text: string; whole: boolean }[],
  progress: (lines: number, bytes: number) => void,
  signal: AbortSignal,
): Promise<Blob> {
  const parts: Blob[] = [];
  let lines = 0;
  let bytes = 0;
  for (const { text, whole } of targets) {
    const response = await api.send("GET", "v1/values", {
      // No key lies between this one and its end: a key contains no U+0000.
      query: whole ? { prefix: text } : { start: text, end: `${text}\u0001` },
      headers: { Accept: NDJSON },
      signal: signal,
    });
    if (!response.body) continue;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      for (const byte of value) if (byte === 10) lines++;
      parts.push(new Blob([value]));
      progress(lines, bytes);
    }
  }
  return new Blob(parts);
}

interface Line {
  number: number;
  /** The entry as `set-values` takes it. */
  entry: string;
}

/** A line of an export as an entry to store; throws an Error whose message says what is wrong. */
export function entryOf(line: string, ifAbsent: boolean): string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    throw new Error("is not JSON");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new Error("is not an object");
  const given = parsed as Record<string, unknown>;
  if (typeof given.key !== "string") throw new Error("has no key");
  const value = member(line, "value");
  if (value === null) throw new Error("has no value");
  const fields = [`"key":${JSON.stringify(given.key)}`, `"value":${value}`];
  for (const name of ["encoding", "content_type", "ttl", "expires_at"]) {
    const text = given[name] === null || given[name] === undefined ? null : member(line, name);
    if (text !== null) fields.push(`"${name}":${text}`);
  }
  if (ifAbsent) fields.push('"if_absent":true');
  return `{${fields.join(",")}}`;
}

/** Store the lines of a file. Returns what was skipped; throws what stopped it. */
export async function importFile(
  file: Blob,
  existing: Existing,
  report: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Progress> {
  const progress: Progress = { lines: 0, bytes: 0, total: null, skipped: [], skippedCount: 0 };
  const skip = (line: number, reason: string): void => {
    progress.skippedCount++;
    if (progress.skipped.length < SHOWN_SKIPS) progress.skipped.push({ line, reason });
  };
  const splitter = new LineSplitter();
  let batch: Line[] = [];
  let size = 0;
  let number = 0;

  const flush = async (): Promise<void> => {
    const sending = batch;
    batch = [];
    size = 0;
    if (sending.length) await send(sending, existing, skip, signal);
    progress.lines = number;
    if (progress.bytes > 0) progress.total = Math.round((number * file.size) / progress.bytes);
    report({ ...progress });
  };
  const take = async (line: string): Promise<void> => {
    number++;
    if (line.trim() === "") return;
    try {
      const entry = entryOf(line, existing !== "replace");
      batch.push({ number, entry });
      size += byteLength(entry);
    } catch (error) {
      skip(number, (error as Error).message);
    }
    if (batch.length >= BATCH_LINES || size >= BATCH_BYTES) await flush();
  };

  const reader = file.stream().getReader();
  const decoder = new TextDecoder();
  for (;;) {
    signal.throwIfAborted();
    const { done, value } = await reader.read();
    if (done) break;
    progress.bytes += value.length;
    for (const line of splitter.push(decoder.decode(value, { stream: true }))) await take(line);
  }
  const rest = splitter.end();
  if (rest) await take(rest);
  await flush();
  progress.total = number;
  return progress;
}

async function send(
  lines: readonly Line[],
  existing: Existing,
  skip: (line: number, reason: string) => void,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  try {
    await api.post("set-values", `{"values":[${lines.map(({ entry }) => entry).join(",")}]}`);
    return;
  } catch (error) {
    if (!(error instanceof Problem) || ![400, 412, 413].includes(error.status)) throw error;
    if (existing === "stop" && error.status === 412)
      throw new Error("A key of the file exists already.", { cause: error });
  }
  // One of them cannot be stored, and then none was: find out which.
  await each(lines, async ({ number, entry }) => {
    signal.throwIfAborted();
    try {
      await api.post("set-value", entry);
    } catch (error) {
      if (!(error instanceof Problem) || ![400, 412, 413].includes(error.status)) throw error;
      skip(number, error.status === 412 ? "the key exists" : error.detail);
    }
  });
}
