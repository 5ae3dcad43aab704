// The keys below a prefix, of which there may be millions. Pages are read as one scrolls; those far
// from the view keep only their first and last keys, and are read again when one comes back.
//
// Pages are in the order of the list. A page without rows was dropped; a gap stands for keys that
// were never read. A list that is not read to its end has a gap there. All ranges are read with keys
// (`start`, `end`), not with cursors, so that they survive changes in between.

import { compareKeys } from "../lib/keys";
import { api, Problem, Stopped, Unreachable, type Counted, type Meta } from "./api";
import { KeyCount } from "./count.svelte";
import type { Change } from "./live.svelte";

export interface Row {
  key: string;
  folder: boolean;
  version: number;
  size: number | null;
  type: string;
  expiresAt: number | null;
  mark: "new" | "changed" | "deleted" | null;
  /** Unix seconds. */
  markedAt: number;
}

interface Page {
  first: string;
  last: string;
  count: number;
  rows: Row[] | null;
  gap: boolean;
}

interface Range {
  after: string | null;
  before: string | null;
  /** From the end of the range instead of its beginning. */
  fromEnd?: boolean;
  limit?: number;
}

export interface ListOptions {
  prefix: string;
  fold: boolean;
  desc: boolean;
}

const PAGE_ROWS = 200;
const REREAD_ROWS = 1000;
const KEPT_PAGES = 20;
const DELETED_MILLISECONDS = 1800;
const MARK_SECONDS = 10;

function isExpected(error: unknown): error is Error {
  return error instanceof Problem || error instanceof Unreachable || error instanceof Stopped;
}

export function rowOf(meta: Meta): Row {
  return {
    key: meta.key,
    folder: false,
    version: meta.version,
    size: meta.size,
    type: meta.content_type,
    expiresAt: meta.expires_at,
    mark: null,
    markedAt: 0,
  };
}

function folderRow(key: string): Row {
  return {
    ...rowOf({ key, version: 0, expires_at: null, content_type: "", size: 0 }),
    folder: true,
  };
}

function pageOf(rows: Row[]): Page {
  const first = rows[0]?.key ?? "";
  return { first, last: rows.at(-1)?.key ?? first, count: rows.length, rows, gap: false };
}

function gapPage(): Page {
  return { first: "", last: "", count: 1, rows: null, gap: true };
}

export class KeyList {
  readonly prefix: string;
  readonly fold: boolean;
  readonly desc: boolean;
  /** Changes whenever a row does. Rows are plain objects: proxies would cost too much. */
  revision = $state(0);
  loading = $state(true);
  started = $state(false);
  problem = $state.raw<Error | null>(null);
  /** Unix seconds at which a list that could not be read is tried again. */
  retryAt = $state<number | null>(null);
  readonly selected = new Set<string>();
  allSelected = $state(false);
  /** The rows in view: [from, to). */
  visible = $state.raw<[number, number]>([0, 0]);

  #pages: Page[] = [];
  #abort = new AbortController();
  #reading = new AbortController();
  #busy = false;
  #folders = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #count: KeyCount;
  #timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(options: ListOptions) {
    this.prefix = options.prefix;
    this.fold = options.fold;
    this.desc = options.desc;
    this.#count = new KeyCount(this.prefix, () => this.#changed());
  }

  /** Give up everything that is under way. */
  close(): void {
    this.#abort.abort();
    this.#count.close();
    for (const timer of [...this.#timers, ...this.#folders.values()]) clearTimeout(timer);
  }

  /** Give up what is being read, until someone asks for it again. */
  stop(): void {
    this.#reading.abort(new Stopped());
  }

  get counted(): Counted | null {
    return this.#count.counted;
  }

  get total(): number {
    void this.revision;
    return this.#pages.reduce((sum, page) => sum + page.count, 0);
  }

  /** Whether every row has been read. */
  get complete(): boolean {
    void this.revision;
    return this.started && !this.#pages.some((page) => page.gap);
  }

  /** The number of rows that are not in any page, if the count is known. */
  get unread(): number | null {
    void this.revision;
    if (this.counted === null || this.fold) return null;
    const read = this.#pages.reduce((sum, page) => sum + (page.gap ? 0 : page.count), 0);
    return Math.max(0, this.counted.count - read);
  }

  #changed(): void {
    this.revision++;
  }

  /** Read the beginning. */
  async start(): Promise<void> {
    await this.#guarded(async () => {
      const { rows, more } = await this.#fetch({ after: null, before: null });
      this.#pages = rows.length ? [pageOf(rows)] : [];
      if (more) this.#pages.push(gapPage());
      this.started = true;
    });
    if (!this.fold) this.#count.refresh();
  }

  /** Everything may have changed: read what is in view again, and the rest when it comes into view. */
  async reload(): Promise<void> {
    if (!this.started || this.#pages.length === 0) return await this.start();
    for (const page of this.#pages) if (!page.gap) page.rows = null;
    const first = this.#pages.findIndex((page) => !page.gap);
    await this.#guarded(() => this.#reread(first));
    if (this.counted) this.#count.refresh();
  }

  /** Go on after a problem, or after being stopped. */
  resume(): void {
    if (!this.started) void this.start();
    else {
      this.problem = null;
      this.retryAt = null;
      this.#changed();
    }
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    this.loading = true;
    this.#reading = new AbortController();
    try {
      await work();
      this.problem = null;
      this.retryAt = null;
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      if (!isExpected(error)) throw error;
      this.problem = error;
      const seconds = error instanceof Problem ? (error.retryAfter ?? 8) : 8;
      const lasting =
        error instanceof Stopped ||
        (error instanceof Problem && error.status < 500 && error.status !== 429);
      this.retryAt = lasting ? null : Date.now() / 1000 + seconds;
    } finally {
      this.#busy = false;
      this.loading = false;
      this.#changed();
    }
  }

  /** Rows strictly between two keys, in the order of the list, and whether there are more of them. */
  async #fetch(range: Range): Promise<{ rows: Row[]; more: boolean }> {
    const { after, before, fromEnd = false, limit = PAGE_ROWS } = range;
    // `start` is inclusive and `end` exclusive, whatever the order.
    const [start, end] = this.desc ? [before, after] : [after, before];
    const page = await api.page(
      {
        prefix: this.prefix,
        limit: limit + (start === null ? 0 : 1),
        ...(this.fold ? { delimiter: "/" } : {}),
        ...(this.desc !== fromEnd ? { order: "desc" } : {}),
        start,
        end,
      },
      AbortSignal.any([this.#abort.signal, this.#reading.signal]),
    );
    const rows = [...page.values.map(rowOf), ...(page.prefixes ?? []).map(folderRow)].filter(
      (row) => row.key !== start,
    );
    rows.sort((a, b) => this.#compare(a.key, b.key));
    return { rows, more: page.cursor !== null };
  }

  #compare(a: string, b: string): number {
    return this.desc ? compareKeys(b, a) : compareKeys(a, b);
  }

  #lastBefore(index: number): string | null {
    return this.#pages.slice(0, index).findLast((page) => !page.gap)?.last ?? null;
  }

  #firstAfter(index: number): string | null {
    return this.#pages.slice(index + 1).find((page) => !page.gap)?.first ?? null;
  }

  /** Read a page that was dropped. What was inserted meanwhile may leave a gap behind it. */
  async #reread(index: number): Promise<void> {
    const page = this.#pages[index];
    if (!page) return;
    const followed = this.#pages[index + 1]?.gap ? page.last : null;
    const before = followed === null ? this.#firstAfter(index) : null;
    const { rows, more } = await this.#fetch({
      after: this.#lastBefore(index),
      before,
      limit: before === null ? PAGE_ROWS : REREAD_ROWS,
    });
    const place = this.#pages.indexOf(page);
    if (place < 0) return;
    const next = this.#pages[place + 1];
    const replacement = rows.length ? [pageOf(rows)] : [];
    if (more && !next?.gap) replacement.push(gapPage());
    this.#pages.splice(
      place,
      1 + (!more && next?.gap && this.#isLast(place + 1) ? 1 : 0),
      ...replacement,
    );
  }

  #isLast(index: number): boolean {
    return index === this.#pages.length - 1;
  }

  /** Fill a gap from above or from below. */
  async #fill(index: number, fromEnd: boolean): Promise<void> {
    const gap = this.#pages[index];
    if (!gap) return;
    const { rows, more } = await this.#fetch({
      after: this.#lastBefore(index),
      before: this.#firstAfter(index),
      fromEnd,
    });
    const place = this.#pages.indexOf(gap);
    if (place < 0) return;
    const found = rows.length ? [pageOf(rows)] : [];
    const rest = more ? [gap] : [];
    this.#pages.splice(place, 1, ...(fromEnd ? [...rest, ...found] : [...found, ...rest]));
  }

  /** Read the last page, leaving a gap before it. */
  async end(): Promise<void> {
    const last = this.#pages.length - 1;
    if (this.#pages[last]?.gap) await this.#guarded(() => this.#fill(last, true));
  }

  /** Called with the rows in view: reads what is missing near them, and drops what is far. */
  ensure(from: number, to: number): void {
    if (this.#busy || this.problem || !this.started) return;
    const screen = to - from;
    const near: [number, number] = [from - screen, to + 2 * screen];
    let start = 0;
    for (const [index, page] of this.#pages.entries()) {
      const end = start + page.count;
      if (end > near[0] && start < near[1] && page.rows === null) {
        const fromBelow = page.gap && !this.#isLast(index) && start < from;
        void this.#guarded(() => (page.gap ? this.#fill(index, fromBelow) : this.#reread(index)));
        break;
      }
      start = end;
    }
    this.#dropFarFrom(from);
  }

  #dropFarFrom(row: number): void {
    let start = 0;
    let middle = 0;
    for (const [index, page] of this.#pages.entries()) {
      if (start <= row) middle = index;
      start += page.count;
    }
    for (const [index, page] of this.#pages.entries())
      if (Math.abs(index - middle) > KEPT_PAGES / 2 && page.rows) page.rows = null;
  }

  /** The row at an index: null while it is not read, "gap" for keys between two parts. */
  at(index: number): Row | "gap" | null {
    let start = 0;
    for (const [place, page] of this.#pages.entries()) {
      if (index < start + page.count) {
        if (page.gap) return this.#isLast(place) ? null : "gap";
        return page.rows?.[index - start] ?? null;
      }
      start += page.count;
    }
    return null;
  }

  /** Rows of a range of indexes, without searching for each. */
  slice(from: number, to: number): (Row | "gap" | null)[] {
    const found: (Row | "gap" | null)[] = [];
    let start = 0;
    for (const [place, page] of this.#pages.entries()) {
      const end = start + page.count;
      for (let i = Math.max(from, start); i < Math.min(to, end); i++)
        found.push(
          page.gap ? (this.#isLast(place) ? null : "gap") : (page.rows?.[i - start] ?? null),
        );
      start = end;
      if (start >= to) break;
    }
    return found;
  }

  /** The index of a key, or -1. */
  indexOf(key: string): number {
    let start = 0;
    for (const page of this.#pages) {
      if (page.rows && this.#compare(page.last, key) >= 0) {
        const place = page.rows.findIndex((row) => row.key === key);
        return place < 0 ? -1 : start + place;
      }
      start += page.count;
    }
    return -1;
  }

  row(key: string): Row | null {
    const found = this.at(this.indexOf(key));
    return found === "gap" ? null : found;
  }

  /** All rows that are in memory. */
  loaded(): Row[] {
    return this.#pages.flatMap((page) => page.rows ?? []);
  }

  // ---- Changes made elsewhere ----

  /** Returns how many rows changed before an index, so that the view can stay where it is. */
  apply(changes: readonly Change[], busy: boolean, view: number): number {
    let moved = 0;
    for (const change of changes) moved += this.#applyOne(change, busy, view);
    if (changes.length) {
      this.#changed();
      if (this.counted) this.#count.refresh();
    }
    return moved;
  }

  #applyOne(change: Change, busy: boolean, view: number): number {
    if (!change.key.startsWith(this.prefix)) return 0;
    const slash = this.fold ? change.key.indexOf("/", this.prefix.length) : -1;
    if (slash >= 0) {
      const folder = change.key.slice(0, slash + 1);
      if (change.kind === "set") return this.#insert(folderRow(folder), view);
      this.#checkFolder(folder);
      return 0;
    }
    const row = this.row(change.key);
    if (change.kind !== "set") {
      if (row && row.version < change.version) {
        row.version = change.version;
        this.#mark(row, "deleted", busy);
      }
      return 0;
    }
    if (row === null) {
      const made = rowOf({
        key: change.key,
        version: change.version,
        size: 0,
        content_type: change.content_type ?? "",
        expires_at: change.expires_at ?? null,
      });
      made.size = change.size ?? null;
      const moved = this.#insert(made, view);
      this.#mark(made, "new", busy);
      return moved;
    }
    if (row.version >= change.version) return 0;
    const gone = row.mark === "deleted";
    row.version = change.version;
    row.size = change.size ?? row.size;
    row.type = change.content_type ?? row.type;
    row.expiresAt = change.expires_at ?? null;
    this.#mark(row, gone ? "new" : "changed", busy);
    return 0;
  }

  #mark(row: Row, mark: NonNullable<Row["mark"]>, busy: boolean): void {
    row.mark = busy && mark !== "deleted" ? null : mark;
    row.markedAt = Date.now() / 1000;
    const after = mark === "deleted" ? (busy ? 0 : DELETED_MILLISECONDS) : MARK_SECONDS * 1000;
    if (row.mark === null) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (row.mark !== mark || Date.now() / 1000 - row.markedAt < after / 1000 - 0.1) return;
      if (mark === "deleted") this.#remove(row.key);
      else row.mark = null;
      this.#changed();
    }, after);
    this.#timers.add(timer);
  }

  #insert(row: Row, view: number): number {
    if (this.row(row.key)) return 0;
    let start = 0;
    let best: { page: Page; start: number; index: number } | null = null;
    for (const [index, page] of this.#pages.entries()) {
      if (!page.gap && (index === 0 || this.#compare(page.first, row.key) <= 0))
        best = { page, start, index };
      start += page.count;
    }
    if (best === null) {
      if (this.#pages.length === 0 && this.started) this.#pages.push(pageOf([row]));
      return 0;
    }
    const { page, index } = best;
    // Beyond what is read: it will be found when its place is.
    if (this.#pages[index + 1]?.gap && this.#compare(page.last, row.key) < 0) return 0;
    if (page.rows === null) return 0;
    const place = page.rows.findIndex((each) => this.#compare(each.key, row.key) > 0);
    const at = place < 0 ? page.rows.length : place;
    page.rows.splice(at, 0, row);
    this.#resize(page);
    return best.start + at < view ? 1 : 0;
  }

  #resize(page: Page): void {
    if (page.rows === null) return;
    page.count = page.rows.length;
    page.first = page.rows[0]?.key ?? page.first;
    page.last = page.rows.at(-1)?.key ?? page.last;
  }

  #remove(key: string): void {
    this.selected.delete(key);
    for (const [index, page] of this.#pages.entries()) {
      const place = page.rows?.findIndex((row) => row.key === key) ?? -1;
      if (place < 0) continue;
      page.rows?.splice(place, 1);
      this.#resize(page);
      if (page.count === 0) this.#pages.splice(index, 1);
      return;
    }
  }

  /** A folder without keys is not a folder: look, once things have calmed down. */
  #checkFolder(folder: string): void {
    clearTimeout(this.#folders.get(folder));
    this.#folders.set(
      folder,
      setTimeout(() => {
        this.#folders.delete(folder);
        void api
          .page({ prefix: folder, limit: 1 }, this.#abort.signal)
          .then((page) => {
            if (page.values.length) return;
            this.#remove(folder);
            this.#changed();
          })
          .catch(() => undefined);
      }, 500),
    );
  }

  // ---- Selection ----

  select(key: string, on = !this.selected.has(key)): void {
    if (on) this.selected.add(key);
    else this.selected.delete(key);
    this.allSelected = false;
    this.#changed();
  }

  selectRange(from: number, to: number): void {
    const [low, high] = from < to ? [from, to] : [to, from];
    for (const row of this.slice(low, high + 1))
      if (row !== null && row !== "gap") this.selected.add(row.key);
    this.#changed();
  }

  selectLoaded(): void {
    for (const row of this.loaded()) this.selected.add(row.key);
    this.#changed();
  }

  clearSelection(): void {
    this.selected.clear();
    this.allSelected = false;
    this.#changed();
  }
}
