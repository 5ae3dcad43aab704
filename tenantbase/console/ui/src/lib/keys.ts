// Keys: their order, their size, and how to show one without being fooled by it.

import { count } from "./format";

export const MAX_KEY_BYTES = 1024;
const TAIL_CHARACTERS = 12;
const encoder = new TextEncoder();

export function byteLength(text: string): number {
  return encoder.encode(text).length;
}

/** Byte order of UTF-8, which is the order of code points; UTF-16's own order differs above U+FFFF. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x !== y) {
      if (x >= 0xd800 && y >= 0xd800) {
        // Surrogates sort after U+E000 to U+FFFF.
        x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
        y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
      }
      return x - y;
    }
  }
  return a.length - b.length;
}

/** Why a text cannot be a key, or null. */
export function keyProblem(key: string): string | null {
  if (key === "") return "A key has at least one character.";
  if (key.includes("\0")) return "A key cannot contain U+0000.";
  if (!key.isWellFormed()) return "A key cannot contain half a character.";
  const bytes = byteLength(key);
  if (bytes > MAX_KEY_BYTES) return `${count(bytes)} bytes: at most ${count(MAX_KEY_BYTES)}.`;
  return null;
}

export interface Segment {
  text: string;
  /** A character that would be invisible or change its surroundings, shown as a box. */
  boxed: boolean;
}

/** What is invisible, or changes its surroundings. */
const ODD = /[\p{Cc}\p{Default_Ignorable_Code_Point}\u2028\u2029\ufff9-\ufffb]/u;

/** A key in parts: plain text, and boxes for control and direction characters. */
export function segments(key: string): Segment[] {
  const found: Segment[] = [];
  for (const char of key) {
    const last = found.at(-1);
    if (ODD.test(char)) {
      const code = (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
      found.push({ text: `U+${code}`, boxed: true });
    } else if (last && !last.boxed) last.text += char;
    else found.push({ text: char, boxed: false });
  }
  return found.length ? found : [{ text: "", boxed: false }];
}

/** Text with odd characters named, for labels and places that take no markup. */
export function named(key: string): string {
  return segments(key)
    .map((part) => (part.boxed ? `‹${part.text}›` : part.text))
    .join("");
}

/** The head and the tail of a key; a key that does not fit is cut between them. */
export function cut(key: string): [string, string] {
  const characters = [...key];
  if (characters.length <= 2 * TAIL_CHARACTERS) return [key, ""];
  const tail = characters.splice(-TAIL_CHARACTERS);
  return [characters.join(""), tail.join("")];
}

/** The folder of a key: everything up to its last slash. */
export function folderOf(key: string): string {
  return key.slice(0, key.lastIndexOf("/") + 1);
}

/** The folder above a prefix. */
export function parentOf(prefix: string): string {
  return folderOf(prefix.replace(/\/$/, ""));
}

/** The end of the range of all keys below a prefix, or null if there is none: exclusive. */
export function afterPrefix(prefix: string): string | null {
  const characters = [...prefix];
  for (let last = characters.pop(); last !== undefined; last = characters.pop()) {
    let code = (last.codePointAt(0) ?? 0) + 1;
    if (code === 0xd800) code = 0xe000;
    if (code <= 0x10ffff) return characters.join("") + String.fromCodePoint(code);
  }
  return null;
}
