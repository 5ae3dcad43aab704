// JSON as text. A value is shown and edited exactly as it is stored, so nothing here goes through a
// JavaScript number or string: a token is a piece of the text.

export type Kind = "key" | "string" | "number" | "literal" | "punct";

export interface Token {
  kind: Kind;
  /** As it is written. */
  text: string;
}

/** Why a text is not JSON. `offset` is in UTF-16 units, `line` counts from 1. */
export class JsonError extends Error {
  constructor(
    readonly reason: string,
    readonly offset: number,
    readonly line: number,
  ) {
    super(`Line ${line}: ${reason}`);
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const LITERAL = /true|false|null/y;
const WORD = /[A-Za-z_$][\w$]*|[^\s]/uy;
/** The levels that the service accepts. */
const MAX_DEPTH = 512;

function lineOf(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at >= 0 && at < offset; at = text.indexOf("\n", at + 1)) line++;
  return line;
}

/** The tokens of a JSON text. Throws JsonError with a reason that a person can act on. */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  const stack: ("{" | "[")[] = [];
  let at = 0;
  // What may come next: a value, a key, or what follows a value.
  let state: "value" | "first-item" | "key" | "first-key" | "after" | "end" = "value";

  const fail = (reason: string, offset = at): never => {
    throw new JsonError(reason, offset, lineOf(text, offset));
  };
  const match = (pattern: RegExp): string | null => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0] ?? null;
  };
  const push = (kind: Kind, token: string): void => {
    tokens.push({ kind, text: token });
    at += token.length;
  };
  const shown = (): string => {
    const found = match(WORD) ?? "";
    return found.length > 24 ? `${found.slice(0, 24)}…` : found;
  };
  const badString = (): never => {
    let i = at + 1;
    for (; i < text.length; i++) {
      const char = text.charAt(i);
      if (char === "\\") {
        if (!/^\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.test(text.slice(i, i + 6)))
          fail(`"${text.slice(i, i + 2)}" is not an escape. Write a backslash as \\\\.`, i);
        i++;
      } else if (char === "\n") fail("a text ends without its closing quote.", i);
      else if (char < " ") fail("a control character in a text must be escaped.", i);
      else if (char === '"') break;
    }
    return fail("a text ends without its closing quote.", Math.min(i, text.length));
  };
  const pop = (closing: string): void => {
    const opening = stack.pop();
    if (opening === undefined) fail(`there is a "${closing}" too many.`);
    if ((opening === "{") !== (closing === "}"))
      fail(`"${closing}" closes what "${opening ?? ""}" opened.`);
    push("punct", closing);
    state = stack.length ? "after" : "end";
  };

  for (;;) {
    at += match(SPACE)?.length ?? 0;
    const char = text.charAt(at);
    if (char === "") break;
    if (state === "end") fail(`nothing may follow the value: ${shown()}`);
    if (state === "after") {
      if (char === ",") {
        push("punct", char);
        state = stack.at(-1) === "{" ? "key" : "value";
      } else if (char === "}" || char === "]") pop(char);
      else
        fail(`a comma is missing before ${char === '"' ? (match(STRING) ?? shown()) : shown()}.`);
    } else if (state === "key" || state === "first-key") {
      if (char === '"') {
        const found = match(STRING) ?? badString();
        push("key", found);
        at += match(SPACE)?.length ?? 0;
        if (text.charAt(at) !== ":") fail(`a colon is missing after ${found}.`);
        push("punct", ":");
        state = "value";
      } else if (char === "}" && state === "first-key") pop(char);
      else if (char === "}") fail("there is a comma too many before }.");
      else fail(`a name in double quotes is expected, not ${shown()}`);
    } else if (char === "]" && state === "first-item") pop(char);
    else {
      if (char === "{" || char === "[") {
        if (stack.length >= MAX_DEPTH) fail("it is nested too deeply: at most 512 levels.");
        stack.push(char);
        push("punct", char);
        state = char === "{" ? "first-key" : "first-item";
        continue;
      }
      if (char === '"') push("string", match(STRING) ?? badString());
      else if (char === "-" || (char >= "0" && char <= "9")) {
        const found = match(NUMBER) ?? fail(`${shown()} is not a number.`);
        const next = text.charAt(at + found.length);
        if (/[\w.+]/.test(next)) fail(`${found}${next} is not a number.`);
        push("number", found);
      } else {
        const found = match(LITERAL);
        if (found === null || /\w/.test(text.charAt(at + found.length))) {
          if (char === "]") fail("there is a comma too many before ].");
          if (char === "'") fail("texts take double quotes.");
          fail(`${shown()} is not a value. Texts take double quotes.`);
        } else push("literal", found);
      }
      state = stack.length ? "after" : "end";
    }
  }
  if (tokens.length === 0) fail("a value is missing.");
  if (stack.length) fail(`a "${stack.at(-1) === "{" ? "}" : "]"}" is missing at the end.`);
  if (state !== "end") fail("a value is missing at the end.");
  return tokens;
}

/** Null if the text is JSON. */
export function problemOf(text: string): JsonError | null {
  try {
    tokenize(text);
    return null;
  } catch (error) {
    if (error instanceof JsonError) return error;
    throw error;
  }
}

export interface Piece {
  kind: Kind | "space";
  text: string;
}

/** A line of formatted JSON. */
export interface Line {
  depth: number;
  pieces: Piece[];
  /** For a line that opens a group: the index of the line that closes it, and how much is inside. */
  closes?: number;
  items?: number;
}

const INDENT = "  ";

/** The text broken into lines and indented; what is stored keeps its own spacing. */
export function format(text: string): Line[] {
  const tokens = tokenize(text);
  const lines: Line[] = [];
  const open: number[] = [];
  let line: Line = { depth: 0, pieces: [] };
  const flush = (): void => {
    lines.push(line);
    line = { depth: open.length, pieces: [] };
  };
  tokens.forEach((token, i) => {
    const before = tokens[i - 1];
    const opener = lines[open.at(-1) ?? -1];
    switch (token.kind === "punct" ? token.text : "") {
      case "{":
      case "[": {
        line.pieces.push(token);
        const next = tokens[i + 1]?.text;
        if (next === "}" || next === "]") return;
        line.items = 1;
        open.push(lines.length);
        flush();
        return;
      }
      case "}":
      case "]":
        if (before?.text !== "{" && before?.text !== "[") {
          open.pop();
          flush();
          if (opener) opener.closes = lines.length;
        }
        line.pieces.push(token);
        return;
      case ",":
        line.pieces.push(token);
        if (opener) opener.items = (opener.items ?? 0) + 1;
        flush();
        return;
      case ":":
        line.pieces.push(token, { kind: "space", text: " " });
        return;
      default:
        line.pieces.push(token);
    }
  });
  lines.push(line);
  return lines;
}

/** The text of formatted lines, with their indentation. */
export function textOf(lines: readonly Line[]): string {
  return lines
    .map((line) => INDENT.repeat(line.depth) + line.pieces.map((piece) => piece.text).join(""))
    .join("\n");
}

/** How a value on one line is spaced. */
export interface Spacing {
  colon: string;
  comma: string;
}

/** The tokens of a JSON text on one line. */
export function compact(text: string, spacing: Spacing): string {
  return tokenize(text)
    .map(({ text: token }) =>
      token === ":" ? spacing.colon : token === "," ? spacing.comma : token,
    )
    .join("");
}

/** The spacing of a JSON text that is written on one line in one way throughout, or null. */
export function spacingOf(text: string): Spacing | null {
  for (const colon of [":", ": "])
    for (const comma of [",", ", "]) {
      const spacing = { colon, comma };
      if (compact(text, spacing) === text) return spacing;
    }
  return null;
}

/** Text as it is written, in coloured pieces: what cannot be read as JSON stays plain. */
export function colour(text: string): Piece[] {
  const pieces: Piece[] = [];
  const pattern =
    /("(?:[^"\\\n]|\\.)*"?)(\s*:)?|(-?\d[\d.eE+-]*)|\b(true|false|null)\b|([{}[\],:])|([^"\d\-{}[\],:tfn]+|.)/gs;
  for (const found of text.matchAll(pattern)) {
    const [all, quoted, colon, number, literal, punct] = found;
    if (quoted !== undefined) {
      pieces.push({ kind: colon === undefined ? "string" : "key", text: quoted });
      if (colon !== undefined) pieces.push({ kind: "punct", text: colon });
    } else if (number !== undefined) pieces.push({ kind: "number", text: number });
    else if (literal !== undefined) pieces.push({ kind: "literal", text: literal });
    else pieces.push({ kind: punct === undefined ? "space" : "punct", text: all });
  }
  return pieces;
}

/** The elements of a JSON array, or the members of an object, each as it is written. */
export function elements(text: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let start = 0;
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},]/g)) {
    const closes = token === "]" || token === "}";
    if (closes) depth--;
    if ((depth === 1 && token === ",") || (depth === 0 && closes)) {
      const element = text.slice(start, index).trim();
      if (element) found.push(element);
      start = index + 1;
    }
    if (token === "[" || token === "{") {
      if (depth === 0) start = index + 1;
      depth++;
    }
  }
  return found;
}

/** The value of a member of a JSON object, as it is written. */
export function member(text: string, name: string): string | null {
  const start = JSON.stringify(name);
  const found = elements(text).find((each) => each.startsWith(start));
  return found === undefined ? null : found.slice(found.indexOf(":", start.length) + 1).trim();
}

/** Whether a JSON text is one integer, so that it can be counted up and down. */
export function isInteger(text: string): boolean {
  return /^\s*-?(?:0|[1-9]\d*)\s*$/.test(text);
}

/** A line's pieces, cut at the ends of what differs in it: [from, to). */
export function marked(
  pieces: readonly Piece[],
  range: readonly [number, number] | null | undefined,
): (Piece & { differs: boolean })[] {
  if (!range) return pieces.map((piece) => ({ ...piece, differs: false }));
  const found: (Piece & { differs: boolean })[] = [];
  let at = 0;
  for (const { kind, text } of pieces) {
    const clamp = (cut: number): number => Math.max(0, Math.min(text.length, cut - at));
    const cuts = [0, clamp(range[0]), clamp(range[1]), text.length];
    for (let i = 0; i < 3; i++) {
      const part = text.slice(cuts[i], cuts[i + 1]);
      // Only text is underlined: an underlined indentation would look like a bar.
      if (part) found.push({ kind, text: part, differs: i === 1 && part.trim() !== "" });
    }
    at += text.length;
  }
  return found;
}
