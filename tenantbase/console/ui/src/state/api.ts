// Requests to the service. The token is kept here, in memory, and nowhere else.

import { elements } from "../lib/json";

export interface Meta {
  key: string;
  id?: string;
  version: number;
  expires_at: number | null;
  content_type: string;
  size: number;
}

export interface Written {
  key: string;
  version: number;
  created: boolean;
  expires_at: number | null;
}

export interface Page {
  values: Meta[];
  prefixes?: string[];
  cursor: string | null;
}

export interface Counted {
  count: number;
  bytes: number;
  at_least?: boolean;
  cursor?: string;
}

export interface RawValue {
  bytes: Uint8Array<ArrayBuffer>;
  contentType: string;
  version: number;
  cache: string;
  milliseconds: number;
  /** The size of the whole value, of which `bytes` may be the beginning. */
  size: number;
}

export interface Entry {
  key: string;
  bytes: Uint8Array<ArrayBuffer>;
  contentType: string;
  version: number;
  expiresAt: number | null;
}

/** An answer that is an error (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    readonly detail: string,
    readonly retryAfter: number | null,
    readonly limit: string | null,
  ) {
    super(detail);
  }
}

/** The status of an answer that is an error; null if it was something else that failed. */
export function statusOf(error: unknown): number | null {
  return error instanceof Problem ? error.status : null;
}

/** There was no answer, or not all of it: the connection failed, or nothing came for too long. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** The person gave it up. */
export class Stopped extends Error {}

/** A read is given up when nothing comes for so long. One that goes on coming may take its time. */
const SILENCE_MILLISECONDS = 15_000;
const NO_CONTENT = 204;
const MAX_WAIT_SECONDS = 10;
const PROBLEM_PREFIX = "urn:tenantbase:problem:";

type Query = Record<string, string | number | boolean | null | undefined>;

export interface Options {
  query?: Query;
  headers?: Record<string, string>;
  body?: BodyInit;
  signal?: AbortSignal;
  /** The tenant; the current one if it is left out. */
  tenant?: string;
}

function isRead(method: string): boolean {
  return method === "GET" || method === "HEAD";
}

function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

/** Ends a read that has gone silent, before its answer or in the middle of it. */
class Silence {
  readonly signal: AbortSignal;
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly limited: boolean,
    private readonly given: AbortSignal | undefined,
  ) {
    this.signal = given ? AbortSignal.any([given, this.#abort.signal]) : this.#abort.signal;
    this.#restart();
  }

  #restart(): void {
    clearTimeout(this.#timer);
    if (this.limited) this.#timer = setTimeout(() => this.#abort.abort(), SILENCE_MILLISECONDS);
  }

  /** What a failed request means: the caller gave it up, or the service did not answer. */
  cause(): unknown {
    clearTimeout(this.#timer);
    return this.given?.aborted ? this.given.reason : new Unreachable();
  }

  /** The same answer, whose body is given up when it goes silent. */
  watch(response: Response): Response {
    if (!response.body || response.status === NO_CONTENT) {
      clearTimeout(this.#timer);
      return response;
    }
    const reader = response.body.getReader();
    const body = new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        this.#restart();
        try {
          const { done, value } = await reader.read();
          clearTimeout(this.#timer);
          if (done) controller.close();
          else controller.enqueue(value);
        } catch {
          controller.error(this.cause());
        }
      },
      cancel: (reason) => {
        clearTimeout(this.#timer);
        return reader.cancel(reason);
      },
    });
    const { status, statusText, headers } = response;
    return new Response(body, { status, statusText, headers });
  }
}

export class Api {
  token: string | null = null;
  /** Named in a header if it is not the caller's own. */
  tenant: string | null = null;
  /** Called when a token is refused that was accepted before. */
  onUnauthenticated: () => void = () => undefined;
  /** Called with the Unix seconds until which the service asked to wait. */
  onBusy: (until: number) => void = () => undefined;

  address(path: string, query: Query = {}): string {
    const url = new URL(path, location.href.replace(/[?#].*$/, ""));
    for (const [name, value] of Object.entries(query))
      if (value !== null && value !== undefined) url.searchParams.set(name, String(value));
    return url.href;
  }

  headers(given: Record<string, string> = {}, tenant = this.tenant): Headers {
    // The browser must keep no values on disk. Unless told otherwise, it says so with no-cache, which
    // would also bypass the service's cache.
    const headers = new Headers({ "Cache-Control": "no-store", ...given });
    if (this.token !== null) headers.set("Authorization", `Bearer ${this.token}`);
    if (tenant !== null) headers.set("X-Tenant", tenant);
    return headers;
  }

  /**
   * Send a request, and return the answer if it is a success.
   * Reads give up after 15 s of silence, and wait once if the service says when to come again.
   */
  async send(method: string, path: string, options: Options = {}): Promise<Response> {
    try {
      return await this.#once(method, path, options);
    } catch (error) {
      if (
        isRead(method) &&
        error instanceof Problem &&
        (error.status === 429 || error.status === 503) &&
        error.retryAfter !== null &&
        error.retryAfter <= MAX_WAIT_SECONDS
      ) {
        this.onBusy(Date.now() / 1000 + error.retryAfter);
        await pause(error.retryAfter, options.signal);
        return await this.#once(method, path, options);
      }
      throw error;
    }
  }

  async #once(method: string, path: string, options: Options): Promise<Response> {
    const silence = new Silence(isRead(method), options.signal);
    let response: Response;
    try {
      response = await fetch(this.address(path, options.query), {
        method,
        headers: this.headers(options.headers, options.tenant),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        ...(options.body === undefined ? {} : { body: options.body }),
        signal: silence.signal,
      });
    } catch {
      throw silence.cause();
    }
    const whole = silence.watch(response);
    if (whole.ok) return whole;
    throw await this.#problem(whole);
  }

  async #problem(response: Response): Promise<Problem> {
    let body: { type?: string; detail?: string; limit?: string } = {};
    try {
      body = (await response.json()) as typeof body;
    } catch {
      // A proxy's error page. The status says enough.
    }
    const retry = Number(response.headers.get("Retry-After") ?? "");
    if (response.status === 401) this.onUnauthenticated();
    return new Problem(
      response.status,
      (body.type ?? "").replace(PROBLEM_PREFIX, ""),
      body.detail ?? `The service answered ${response.status}.`,
      retry > 0 ? retry : null,
      body.limit ?? null,
    );
  }

  async json<T>(method: string, path: string, options: Options = {}): Promise<T> {
    return JSON.parse(textOf(await bytesOf(await this.send(method, path, options)))) as T;
  }

  page(query: Query, signal?: AbortSignal): Promise<Page> {
    return this.json("GET", "v1/values", {
      query: { fields: "meta", ...query },
      ...(signal ? { signal } : {}),
    });
  }

  /** What is known of a key without its value; null if there is no such key. */
  async meta(key: string, signal?: AbortSignal): Promise<Meta | null> {
    // The first key that begins with this one is itself, if it exists.
    const page = await this.page({ prefix: key, limit: 1 }, signal);
    const first = page.values[0];
    return first?.key === key ? first : null;
  }

  /** The keys below a prefix, as many as are counted in a second. */
  count(prefix: string, cursor: string | null, signal: AbortSignal): Promise<Counted> {
    return this.json("GET", "v1/count", { query: { prefix, cursor }, signal });
  }

  /**
   * The bytes of a value.
   * `first`: at most so many, from its beginning. `fresh`: from the database, past the cache.
   */
  async read(
    key: string,
    { first, fresh, signal }: { first?: number; fresh?: boolean; signal?: AbortSignal } = {},
  ): Promise<RawValue> {
    if (isDots(key)) return await this.#readEntry(key);
    const headers: Record<string, string> = {};
    if (first !== undefined) headers.Range = `bytes=0-${first - 1}`;
    if (fresh) headers["Cache-Control"] = "no-cache";
    const begun = performance.now();
    const response = await this.send("GET", valuePath(key), {
      headers,
      ...(signal ? { signal } : {}),
    });
    const bytes = await bytesOf(response);
    const range = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
    return {
      bytes,
      contentType: response.headers.get("Content-Type") ?? "application/octet-stream",
      version: Number(/\d+/.exec(response.headers.get("ETag") ?? "")?.[0] ?? 0),
      cache: response.headers.get("X-Cache") ?? "",
      milliseconds: performance.now() - begun,
      size: range ? Number(range[1]) : bytes.length,
    };
  }

  /** The value of a key that is a path of dots, which a browser resolves before it is sent. */
  async #readEntry(key: string): Promise<RawValue> {
    const begun = performance.now();
    const response = await this.send("GET", "get-value", { query: { key } });
    const { bytes, contentType, version } = entryOf(textOf(await bytesOf(response)));
    return {
      bytes,
      contentType,
      version,
      cache: response.headers.get("X-Cache") ?? "",
      milliseconds: performance.now() - begun,
      size: bytes.length,
    };
  }

  /** Store bytes with their type. */
  put(
    key: string,
    body: BodyInit,
    contentType: string,
    options: { query?: Query; headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Written> {
    return this.json("PUT", valuePath(key), {
      body,
      query: options.query ?? {},
      headers: { ...options.headers, "Content-Type": contentType },
      ...(options.signal ? { signal: options.signal } : {}),
    });
  }

  /** Send a JSON text as it is written: a value in it is never read and written again. */
  post<T>(path: string, body: string, headers: Record<string, string> = {}): Promise<T> {
    return this.json("POST", path, {
      body,
      headers: { ...headers, "Content-Type": "application/json" },
    });
  }

  /** Delete keys in one transaction. Returns the entries that it removed. */
  async remove(keys: readonly string[]): Promise<Entry[]> {
    const response = await this.send("POST", "delete-values", {
      body: JSON.stringify({ keys, return_values: true }),
    });
    const text = textOf(await bytesOf(response));
    return elements(text.slice(text.indexOf("["), -1)).map(entryOf);
  }
}

/** An entry in an answer, with the bytes of its value as they are stored. */
function entryOf(text: string): Entry {
  const entry = JSON.parse(text) as {
    key: string;
    value: string;
    version: number;
    expires_at: number | null;
    encoding?: string;
    content_type?: string;
  };
  // The service copies JSON into its answer as it is stored, with the white space around it. Neither
  // marker can occur in a string: its quotation marks would be escaped.
  const json = text.slice(text.indexOf('"value":') + 8, text.lastIndexOf(',"id":"'));
  return {
    key: entry.key,
    bytes:
      entry.encoding === "base64"
        ? Uint8Array.from(atob(entry.value), (char) => char.charCodeAt(0))
        : new TextEncoder().encode(entry.encoding ? entry.value : json),
    contentType: entry.content_type ?? "application/json",
    version: entry.version,
    expiresAt: entry.expires_at,
  };
}

/** All bytes of an answer. `Response.arrayBuffer` does not say why it failed. */
async function bytesOf(response: Response): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body?.getReader();
  for (;;) {
    const read = await reader?.read();
    if (!read || read.done) break;
    parts.push(read.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

function isDots(key: string): boolean {
  return key === "." || key === "..";
}

function valuePath(key: string): string {
  return `v1/values/${encodeURIComponent(key)}`;
}

export const api = new Api();
