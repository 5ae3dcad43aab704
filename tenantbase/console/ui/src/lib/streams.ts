// Streams of text: lines of NDJSON, and server-sent events.

/** Splits text that comes in pieces into lines. */
export class LineSplitter {
  #rest = "";

  /** The lines that are complete now. */
  push(text: string): string[] {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));
  }

  /** What is left after the last line end. */
  end(): string {
    const rest = this.#rest;
    this.#rest = "";
    return rest;
  }
}

export interface ServerEvent {
  event: string;
  data: string;
  id: string | null;
}

/** Server-sent events, as the WHATWG's standard reads them. */
export class EventParser {
  #lines = new LineSplitter();
  #event = "";
  #data: string[] = [];
  #id: string | null = null;

  /** The events that are complete now. A block without data is not an event, but its id counts. */
  push(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    for (const line of this.#lines.push(text)) {
      if (line === "") {
        if (this.#data.length || this.#id !== null)
          found.push({
            event: this.#data.length ? this.#event || "message" : "",
            data: this.#data.join("\n"),
            id: this.#id,
          });
        this.#event = "";
        this.#data = [];
        this.#id = null;
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") this.#event = value;
      else if (field === "data") this.#data.push(value);
      else if (field === "id") this.#id = value;
    }
    return found;
  }
}
