// What the whole page shares: the clock, the theme, messages, what is open above it.

export type Theme = "light" | "dark" | null;

const THEME = "tenantbase-theme";
const LIST_WIDTH = "tenantbase-list-width";
const KEYS_OFF = "tenantbase-single-keys-off";
const MESSAGE_MILLISECONDS = 4000;
const UNDO_MILLISECONDS = 10_000;
const MAX_MESSAGES = 3;

export interface Message {
  id: number;
  kind: "info" | "ok" | "danger";
  text: string;
  /** A key, shown as one. */
  key?: string;
  after?: string;
  action?: { label: string; hint?: string; run: () => void };
  /** When it goes away by itself; 0: when it is dismissed. */
  milliseconds: number;
}

/** Storage may be forbidden. Nothing depends on it. */
function stored(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Kept for this page only.
  }
}

class Ui {
  /** Unix seconds, once a second, for ages and countdowns. */
  now = $state(Date.now() / 1000);
  theme = $state<Theme>(null);
  listWidth = $state<number | null>(null);
  singleKeys = $state(stored(KEYS_OFF) !== "1");
  messages = $state.raw<Message[]>([]);
  polite = $state("");
  alert = $state("");
  palette = $state(false);
  help = $state(false);
  showValues = $state(false);
  wrap = $state(false);
  /** By tenant and key. Each change makes a new map. */
  drafts = $state.raw<ReadonlyMap<string, Draft>>(new Map());
  #nextId = 1;

  constructor() {
    const theme = stored(THEME);
    this.theme = theme === "light" || theme === "dark" ? theme : null;
    const width = Number(stored(LIST_WIDTH));
    this.listWidth = width > 0 && width < 1 ? width : null;
    setInterval(() => {
      if (!document.hidden) this.now = Date.now() / 1000;
    }, 1000);
    document.addEventListener("visibilitychange", () => {
      this.now = Date.now() / 1000;
    });
  }

  get dark(): boolean {
    return this.theme === null
      ? matchMedia("(prefers-color-scheme: dark)").matches
      : this.theme === "dark";
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    store(THEME, theme);
  }

  setListWidth(width: number | null): void {
    this.listWidth = width;
    store(LIST_WIDTH, width === null ? null : width.toFixed(3));
  }

  setSingleKeys(on: boolean): void {
    this.singleKeys = on;
    store(KEYS_OFF, on ? null : "1");
  }

  say(message: Omit<Message, "id" | "milliseconds">): number {
    const milliseconds =
      message.kind === "danger" ? 0 : message.action ? UNDO_MILLISECONDS : MESSAGE_MILLISECONDS;
    const id = this.#nextId++;
    this.messages = [...this.messages, { ...message, id, milliseconds }].slice(-MAX_MESSAGES);
    return id;
  }

  dismiss(id: number): void {
    this.messages = this.messages.filter((message) => message.id !== id);
  }

  /** The newest message's action, such as Undo. */
  undo(): boolean {
    const last = this.messages.findLast((message) => message.action?.label === "Undo");
    if (!last?.action) return false;
    this.dismiss(last.id);
    last.action.run();
    return true;
  }

  /** For screen readers. The same text twice is announced twice. */
  announce(text: string): void {
    this.polite = this.polite === text ? `${text}\u00a0` : text;
  }

  fail(text: string, action?: Message["action"]): void {
    this.say({ kind: "danger", text, ...(action ? { action } : {}) });
  }
}

export interface Draft {
  text: string;
  kind: "json" | "text";
  contentType: string;
  /** The version that the draft is based on. */
  version: number;
  /** What was stored then, in the form of the draft. */
  base: string;
  /** How the value is written on one line, if it is. */
  spacing: { colon: string; comma: string } | null;
}

export const ui = new Ui();
