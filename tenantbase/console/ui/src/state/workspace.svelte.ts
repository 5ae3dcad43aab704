// What the keys page has open: a list, a value, and what is about to be done with them.

import { folderOf, parentOf } from "../lib/keys";
import type { KeysRoute } from "../lib/route";
import { api, type Meta } from "./api";
import { KeyList, type Row } from "./list.svelte";
import { live, type Change } from "./live.svelte";
import { router } from "./router.svelte";
import { session } from "./session.svelte";
import { ui } from "./ui.svelte";
import { OpenValue } from "./value.svelte";
import { deleteWithUndo, undoable } from "./writing";

export type Dialog =
  | { kind: "rename" | "duplicate"; key: string }
  | { kind: "copy-to"; chosen: Chosen }
  | { kind: "expiry"; chosen: Chosen }
  | { kind: "delete-folder"; prefix: string }
  | { kind: "delete-many"; keys: string[] }
  | { kind: "import"; file: File }
  | { kind: "export"; targets: { text: string; whole: boolean }[]; name: string }
  | { kind: "upload"; files: File[] };

/** What is selected: keys, and folders, which some commands leave out. */
export interface Chosen {
  keys: string[];
  folders: number;
}

const FILTER_MILLISECONDS = 120;
const ANNOUNCE_MILLISECONDS = 10_000;

export function metaOf(row: Row): Meta {
  return {
    key: row.key,
    version: row.version,
    expires_at: row.expiresAt,
    content_type: row.type,
    size: row.size ?? 0,
  };
}

class Workspace {
  list = $state.raw<KeyList | null>(null);
  open = $state.raw<OpenValue | null>(null);
  /** The row that the keyboard is on. */
  focus = $state<string | null>(null);
  dialog = $state.raw<Dialog | null>(null);
  /** A row was opened: where the value hides the list, focus goes with it. */
  entering = false;
  /** Nothing at all is stored below what this caller may see. */
  view = 0;
  /** Set by the list: keeps the view where it is when rows come or go above it. */
  shift: (rows: number) => void = () => undefined;
  focusList: () => void = () => undefined;
  focusFilter: () => void = () => undefined;
  #listName = "";
  #watched = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #announced = 0;
  #unannounced = 0;

  get route(): KeysRoute | null {
    return router.route.place === "keys" ? router.route : null;
  }

  /** Make what is open match the address. */
  sync(route: KeysRoute): void {
    if (session.tenant !== route.tenant) session.useTenant(route.tenant);
    const watched = `${route.tenant}\n${route.prefix}`;
    const name = `${watched}\n${route.filter}\n${route.all}\n${route.desc}`;
    if (name !== this.#listName) {
      clearTimeout(this.#timer);
      const typing = this.#listName.startsWith(`${watched}\n`) && this.list !== null;
      this.#listName = name;
      if (typing)
        this.#timer = setTimeout(() => this.#openList(route, watched), FILTER_MILLISECONDS);
      else this.#openList(route, watched);
    }
    const key = route.mode === "new" ? null : route.key;
    if (this.open?.key !== key || this.#tenantOfOpen !== route.tenant)
      this.#openKey(key, route.tenant);
  }
  #tenantOfOpen = "";

  #openList(route: KeysRoute, watched: string): void {
    this.list?.close();
    const list = new KeyList({
      prefix: route.prefix + route.filter,
      fold: !route.all,
      desc: route.desc,
    });
    this.list = list;
    this.focus = null;
    if (watched === this.#watched) void list.start();
    else {
      this.#watched = watched;
      // The list is read once the stream of changes is open, so that none is missed in between.
      live.open(route.prefix, {
        reset: () => {
          void this.list?.reload();
          void this.open?.refresh();
        },
        changes: (changes, busy) => this.#apply(changes, busy),
      });
      void list.start();
    }
  }

  #openKey(key: string | null, tenant: string): void {
    this.open?.close();
    this.#tenantOfOpen = tenant;
    if (key === null) {
      this.open = null;
      return;
    }
    const row = this.list?.prefix !== undefined ? this.list.row(key) : null;
    this.open = new OpenValue(key, row && row.size !== null && row.type ? metaOf(row) : null);
    this.focus = key;
  }

  #apply(changes: readonly Change[], busy: boolean): void {
    const moved = this.list?.apply(changes, busy, this.view) ?? 0;
    if (moved) this.shift(moved);
    for (const change of changes) this.open?.apply(change);
    this.#unannounced += changes.length;
    const now = Date.now();
    if (this.#unannounced && now - this.#announced > ANNOUNCE_MILLISECONDS) {
      ui.announce(`${this.#unannounced} ${this.#unannounced === 1 ? "key" : "keys"} changed.`);
      this.#announced = now;
      this.#unannounced = 0;
    }
  }

  /** Leave the keys page, or the tenant. */
  close(): void {
    live.close();
    this.list?.close();
    this.open?.close();
    this.list = null;
    this.open = null;
    this.#listName = "";
    this.#watched = "";
  }

  /** The corner of a tenant that the token reaches. */
  home(tenant = session.tenant): KeysRoute {
    return {
      place: "keys",
      tenant,
      prefix: session.prefix,
      key: null,
      mode: "view",
      filter: "",
      all: false,
      desc: false,
    };
  }

  start(tenant = session.tenant, replace = true): void {
    router.go(this.home(tenant), { replace });
  }

  /** Open a row: a folder becomes the list, a key the value. */
  openRow(key: string, folder: boolean): void {
    if (folder) router.change({ prefix: key, filter: "", key: null, mode: "view" });
    else {
      this.entering = true;
      router.change({ key, mode: "view" });
    }
  }

  openFolder(prefix: string): void {
    router.change({ prefix, filter: "", key: null, mode: "view", all: false });
  }

  up(): void {
    const route = this.route;
    if (!route || route.prefix === session.prefix) return;
    const parent = parentOf(route.prefix);
    this.openFolder(parent.startsWith(session.prefix) ? parent : session.prefix);
  }

  newKey(key?: string): void {
    const route = this.route;
    if (!route || !session.mayWrite) return;
    router.change({ mode: "new", key: key ?? null });
  }

  /** Where the list stays after a key elsewhere was made or renamed. */
  show(key: string): void {
    const route = this.route;
    if (!route) return;
    const prefix = key.startsWith(route.prefix) ? route.prefix : folderOf(key);
    const filter = key.startsWith(prefix + route.filter) ? route.filter : "";
    this.focus = key;
    router.change({ key, mode: "view", prefix, filter });
  }

  closeValue(): void {
    router.change({ key: null, mode: "view" });
    this.focusList();
  }

  /** The rows of the selection, or the one that the keyboard is on. */
  targets(): string[] {
    const list = this.list;
    if (list && list.selected.size) return [...list.selected];
    const key = this.open?.key ?? this.focus;
    return key === null ? [] : [key];
  }

  /** Delete what is selected, open or focused: at once with undo, or after a question. */
  async remove(keys: string[] = this.targets()): Promise<void> {
    if (!session.mayWrite || keys.length === 0) return;
    const [only] = keys;
    const list = this.list;
    if (list?.allSelected) {
      this.dialog = { kind: "delete-folder", prefix: list.prefix };
      return;
    }
    if (keys.length === 1 && only !== undefined && this.isFolder(only)) {
      this.dialog = { kind: "delete-folder", prefix: only };
      return;
    }
    if (keys.some((key) => this.isFolder(key))) {
      this.dialog = { kind: "delete-many", keys };
      return;
    }
    const metas = await this.metas(keys);
    if (!undoable(metas)) {
      this.dialog = { kind: "delete-many", keys };
      return;
    }
    const next = only === undefined ? null : this.neighbour(only);
    if (!(await deleteWithUndo(metas))) return;
    list?.clearSelection();
    if (this.open && keys.includes(this.open.key)) router.change({ key: null, mode: "view" });
    if (next !== null) this.focus = next;
    this.focusList();
  }

  chosen(all: readonly string[]): Chosen {
    const keys = all.filter((key) => !this.isFolder(key));
    return { keys, folders: all.length - keys.length };
  }

  isFolder(key: string): boolean {
    return this.list?.row(key)?.folder ?? (this.list?.fold === true && key.endsWith("/"));
  }

  neighbour(key: string): string | null {
    const list = this.list;
    const index = list?.indexOf(key) ?? -1;
    if (!list || index < 0) return null;
    for (const place of [index + 1, index - 1]) {
      const row = list.at(place);
      if (row && row !== "gap") return row.key;
    }
    return null;
  }

  async metas(keys: readonly string[]): Promise<Meta[]> {
    const found: Meta[] = [];
    for (const key of keys) {
      const row = this.list?.row(key);
      const meta =
        this.open?.key === key && this.open.meta
          ? this.open.meta
          : row && row.size !== null
            ? metaOf(row)
            : await api.meta(key);
      if (meta) found.push(meta);
    }
    return found;
  }

  /** Ask to export everything below a prefix. */
  exportFolder(prefix: string): void {
    this.#export([{ text: prefix, whole: true }]);
  }

  /** Ask to export what is selected. */
  exportTargets(keys: string[]): void {
    if (this.list?.allSelected) this.exportFolder(this.list.prefix);
    else this.#export(keys.map((key) => ({ text: key, whole: this.isFolder(key) })));
  }

  #export(targets: { text: string; whole: boolean }[]): void {
    const [only] = targets;
    const stem = targets.length === 1 ? only?.text.split("/").filter(Boolean).at(-1) : "keys";
    this.dialog = { kind: "export", targets, name: `${stem ?? session.tenant}.ndjson` };
  }
}

export const workspace = new Workspace();
