// How many keys lie below a prefix. The service counts for at most a second per request, so that
// many keys take several. Changes make it count again, but most of the time it rests.

import { api, Problem, Unreachable, type Counted } from "./api";

const REST_MILLISECONDS = 1000;
const REST_FACTOR = 10;

/** Count to the end. `found` is told how far it has come; the last answer has no `at_least`. */
export async function countAll(
  prefix: string,
  signal: AbortSignal,
  found: (counted: Counted) => void = () => undefined,
): Promise<Counted> {
  const sum: Counted = { count: 0, bytes: 0, at_least: true };
  for (let cursor: string | null = null; ;) {
    const part: Counted = await api.count(prefix, cursor, signal);
    sum.count += part.count;
    sum.bytes += part.bytes;
    cursor = part.cursor ?? null;
    if (cursor === null) break;
    found({ ...sum });
  }
  const whole = { count: sum.count, bytes: sum.bytes };
  found(whole);
  return whole;
}

/** A count that is kept up to date. */
export class KeyCount {
  counted = $state.raw<Counted | null>(null);
  #abort = new AbortController();
  #busy = false;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly prefix: string,
    private readonly changed: () => void = () => undefined,
  ) {}

  close(): void {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  /** Count now, or, if it has just been done, after a rest ten times as long as it took. */
  refresh(): void {
    if (this.#busy) this.#again = true;
    else void this.#count();
  }

  async #count(): Promise<void> {
    this.#busy = true;
    this.#again = false;
    const begun = performance.now();
    const first = this.counted === null;
    try {
      const whole = await countAll(this.prefix, this.#abort.signal, (part) => {
        // What is already known stays until all are counted again.
        if (first) this.#know(part);
      });
      this.#know(whole);
    } catch (error) {
      // The list says why it cannot be read; a count is not needed.
      if (this.#abort.signal.aborted) return;
      if (!(error instanceof Problem) && !(error instanceof Unreachable)) throw error;
    }
    const rest = Math.max(REST_MILLISECONDS, REST_FACTOR * (performance.now() - begun));
    this.#timer = setTimeout(() => {
      this.#busy = false;
      if (this.#again) this.refresh();
    }, rest);
  }

  #know(counted: Counted): void {
    this.counted = counted;
    this.changed();
  }
}
