// What keys, menus and the palette all do. Components fill in what only they can.

import type { Where } from "../lib/curl";
import { named } from "../lib/keys";
import { api, statusOf } from "../state/api";
import { session } from "../state/session.svelte";
import { ui } from "../state/ui.svelte";
import type { OpenValue } from "../state/value.svelte";
import { workspace } from "../state/workspace.svelte";
import { reasonOf, store, storeBytes } from "../state/writing";
import { pickFiles } from "./pick";

export function where(): Where {
  return {
    base: location.href.replace(/[?#].*$/, "").replace(/[^/]*$/, ""),
    token: session.hasToken,
    tenant: session.isAdmin && session.tenant !== "default" ? session.tenant : null,
  };
}

interface ValueCommands {
  show: () => Promise<void>;
  edit: () => void;
  copy: () => void;
  fold: (line: number, shut: boolean) => void;
}

class Commands {
  value: ValueCommands | null = null;
  counter = $state.raw<{ add: (sign: "" | "-") => Promise<void> } | null>(null);
  /** Saves what is being edited. */
  save: (() => void) | null = null;

  /** Ask for a file of NDJSON to import. */
  async importFile(): Promise<void> {
    const [file] = await pickFiles(".ndjson,.jsonl,.json,application/x-ndjson", false);
    if (file) workspace.dialog = { kind: "import", file };
  }

  /** Put a file in place of a value, unless it was changed meanwhile. */
  async replaceFile(key: string): Promise<void> {
    const [file] = await pickFiles("", false);
    if (!file || !workspace.open) return;
    const meta = workspace.open.meta;
    try {
      const written = await api.put(key, file, file.type || "application/octet-stream", {
        query: { expires_at: meta?.expires_at },
        headers: meta ? { "If-Match": `"${meta.version}"` } : {},
      });
      ui.say({ kind: "ok", text: "Saved", key, after: `, version ${written.version}` });
      await workspace.open.refresh();
      if (workspace.open.look === "shown") await workspace.open.read();
    } catch (error) {
      if (statusOf(error) === 412)
        ui.fail(`Not replaced: someone else changed ${named(key)}. Look at it again first.`);
      else ui.fail(`Not replaced: ${reasonOf(error)}`);
    }
  }

  /** A value that is gone, from what is still shown of it. */
  async storeAgain(open: OpenValue): Promise<void> {
    const shown = open.shown;
    if (!shown) return;
    try {
      await storeBytes(open.key, shown.raw.bytes, shown.raw.contentType);
      ui.say({ kind: "ok", text: "Stored again", key: open.key });
      await open.refresh();
      await open.read();
    } catch (error) {
      if (statusOf(error) === 412)
        ui.fail(`${named(open.key)} exists again, written by someone else. Not stored.`);
      else ui.fail(`Not stored: ${reasonOf(error)}`);
    }
  }

  /** A few keys that show what can be stored. */
  async addExamples(prefix: string): Promise<void> {
    const never = { choice: "never" } as const;
    const json = { kind: "json", contentType: "application/json" } as const;
    try {
      for (const [key, text] of EXAMPLES)
        await store(prefix + key, { ...json, text }, never, null).catch(ignoreTaken);
      await store(
        `${prefix}user/1/session`,
        { ...json, text: '{"device": "Firefox on Linux"}' },
        { choice: "in", seconds: 3600 },
        null,
      ).catch(ignoreTaken);
      await storeBytes(
        `${prefix}notes/welcome`,
        "Values may be text, images or any other bytes.\nDrop a file on this page to store it.\n",
        "text/plain; charset=utf-8",
      ).catch(ignoreTaken);
      ui.say({ kind: "ok", text: "Added a few examples." });
    } catch (error) {
      ui.fail(`Not all examples were added: ${reasonOf(error)}`);
    }
  }
}

const EXAMPLES: readonly (readonly [string, string])[] = [
  ["hello", '"world"'],
  ["flags/checkout", '{"on": true, "rollout": 0.25, "owners": ["payments", "web"]}'],
  ["flags/dark-mode", "false"],
  [
    "user/1/profile",
    '{"id": 9007199254740993, "name": "Maya Lindqvist", "email": "maya@lindqvist.example", "balance": 1.0, "address": {"city": "Göteborg", "country": "SE"}}',
  ],
  ["user/1/visits", "41"],
];

function ignoreTaken(error: unknown): void {
  if (statusOf(error) !== 412) throw error;
}

export const commands = new Commands();
