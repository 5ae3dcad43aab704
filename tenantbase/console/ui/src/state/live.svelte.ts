// The stream of changes: one for the open folder, read with `fetch` so that the token travels in a
// header. It says when it is lost, comes back by itself, and resumes where it was.

import { EventParser } from "../lib/streams";
import { api, Problem, statusOf } from "./api";
import { session } from "./session.svelte";
import { ui } from "./ui.svelte";

export interface Change {
  kind: "set" | "delete" | "expire" | "reset";
  key: string;
  version: number;
  size?: number;
  content_type?: string;
  expires_at?: number | null;
}

export interface Listener {
  /** Everything below the prefix must be read again. */
  reset: () => void;
  /** Changes in the order in which they were made; `busy`: too many to mark each. */
  changes: (changes: Change[], busy: boolean) => void;
}

type Status = "off" | "connecting" | "live" | "lost";

/** The service sends at least a comment every 15 s. */
const SILENCE_MILLISECONDS = 30_000;
const PAUSES_SECONDS = [0.5, 1, 2, 4, 8, 15];
const BUSY_PER_SECOND = 50;
const BUSY_PAUSE_MILLISECONDS = 250;
const REGAINED_MILLISECONDS = 4000;

class Live {
  status = $state<Status>("off");
  /** Unix seconds. */
  lostAt = $state(0);
  /** For a moment after the connection came back: the number of changes that came with it. */
  regained = $state<number | null>(null);
  lastChange = $state<number | null>(null);
  perSecond = $state(0);

  #listener: Listener | null = null;
  #prefix = "";
  #abort: AbortController | null = null;
  #lastId: string | null = null;
  #attempt = 0;
  #buffer: Change[] = [];
  #flushing = false;
  #recent: number[] = [];
  #wake: (() => void) | null = null;
  #catchingUp = 0;

  constructor() {
    window.addEventListener("online", () => this.#wake?.());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake?.();
    });
  }

  /** Follow the changes below a prefix. `ready` is called once the stream is open. */
  open(prefix: string, listener: Listener): void {
    const wasLive = this.status === "live";
    this.close();
    this.#prefix = prefix;
    this.#listener = listener;
    // From one folder to the next, the sign does not flicker.
    this.status = wasLive ? "live" : "connecting";
    const abort = new AbortController();
    this.#abort = abort;
    void this.#run(abort);
  }

  close(): void {
    this.#abort?.abort();
    this.#abort = null;
    this.#listener = null;
    this.#buffer = [];
    this.#lastId = null;
    this.#attempt = 0;
    this.status = "off";
    this.lastChange = null;
    this.perSecond = 0;
    this.#recent = [];
  }

  /** Try again now. */
  retry(): void {
    this.#wake?.();
  }

  async #run(abort: AbortController): Promise<void> {
    while (!abort.signal.aborted) {
      try {
        await this.#follow(abort);
      } catch (error) {
        if (abort.signal.aborted) return;
        if (statusOf(error) === 401) {
          if (this.status !== "lost") this.lostAt = Date.now() / 1000;
          this.status = "lost";
          if (!(await this.#whileRevoked(abort))) return;
          continue;
        }
        // Out of the token's reach, or no such tenant: the list says so.
        if (statusOf(error) === 403 || statusOf(error) === 404) {
          this.status = "off";
          return;
        }
        if (error instanceof Problem && error.retryAfter !== null) {
          // Not lost: the service is there, and asks to wait.
          if (this.status !== "lost") this.status = "connecting";
          api.onBusy(Date.now() / 1000 + error.retryAfter);
          await this.#sleep(error.retryAfter * 1000, abort.signal);
          continue;
        }
      }
      if (abort.signal.aborted) return;
      this.#lost();
      const seconds = PAUSES_SECONDS[Math.min(this.#attempt++, PAUSES_SECONDS.length - 1)] ?? 15;
      await this.#sleep(seconds * 1000 * (0.8 + 0.4 * Math.random()), abort.signal);
    }
  }

  async #whileRevoked(abort: AbortController): Promise<boolean> {
    while (session.revoked && !abort.signal.aborted) await this.#sleep(1000, abort.signal);
    return !abort.signal.aborted;
  }

  #sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#wake = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.#wake = done;
      signal.addEventListener("abort", done, { once: true });
    });
  }

  #lost(): void {
    if (this.status === "lost") return;
    this.status = "lost";
    this.lostAt = Date.now() / 1000;
    ui.alert = "Connection lost. You see what was stored before.";
  }

  async #follow(outer: AbortController): Promise<void> {
    const silent = new AbortController();
    const stop = (): void => silent.abort();
    let silence = setTimeout(stop, SILENCE_MILLISECONDS);
    try {
      const response = await fetch(api.address("v1/watch", { prefix: this.#prefix }), {
        headers: api.headers(this.#lastId === null ? {} : { "Last-Event-ID": this.#lastId }),
        signal: AbortSignal.any([outer.signal, silent.signal]),
        cache: "no-store",
        credentials: "omit",
      });
      if (!response.ok || !response.body) {
        if (response.status === 401) api.onUnauthenticated();
        const retry = Number(response.headers.get("Retry-After") ?? "");
        throw new Problem(response.status, "", "", retry > 0 ? retry : null, null);
      }
      const wasLost = this.status === "lost";
      this.status = "live";
      this.#attempt = 0;
      if (wasLost) this.#regain();
      // Without a place to resume from, changes may have been missed.
      if (this.#lastId === null) this.#listener?.reset();
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE_MILLISECONDS);
        for (const event of parser.push(value)) {
          if (event.id !== null) this.#lastId = event.id;
          if (event.event) this.#receive(event.event, event.data);
        }
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #regain(): void {
    this.regained = 0;
    this.#catchingUp++;
    void session.checkHealth();
    const turn = this.#catchingUp;
    setTimeout(() => {
      if (turn === this.#catchingUp) this.regained = null;
    }, REGAINED_MILLISECONDS);
    ui.announce("Connected again.");
    ui.alert = "";
  }

  #receive(event: string, data: string): void {
    const change = JSON.parse(data) as Change & { prefix?: string };
    if (event !== "set" && event !== "delete" && event !== "expire" && event !== "reset") return;
    this.#buffer.push({ ...change, kind: event, key: change.key ?? change.prefix ?? "" });
    if (this.regained !== null) this.regained++;
    this.lastChange = Date.now() / 1000;
    if (this.#flushing) return;
    this.#flushing = true;
    const flush = (): void => {
      this.#flushing = false;
      this.#flush();
    };
    if (this.perSecond > BUSY_PER_SECOND || document.hidden)
      setTimeout(flush, BUSY_PAUSE_MILLISECONDS);
    else requestAnimationFrame(flush);
  }

  #flush(): void {
    const changes = this.#buffer;
    this.#buffer = [];
    const now = performance.now();
    this.#recent.push(...changes.map(() => now));
    this.#count();
    if (changes.some((change) => change.kind === "reset")) this.#listener?.reset();
    this.#listener?.changes(
      changes.filter((change) => change.kind !== "reset"),
      this.perSecond > BUSY_PER_SECOND,
    );
  }

  #count(): void {
    const now = performance.now();
    this.#recent = this.#recent.filter((at) => now - at < 1000);
    this.perSecond = this.#recent.length;
    if (this.perSecond > 0)
      setTimeout(() => {
        if (performance.now() - now > 900) this.#count();
      }, 1000);
  }
}

export const live = new Live();
