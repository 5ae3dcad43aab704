import { describe, expect, it } from "vitest";
import {
  afterPrefix,
  byteLength,
  compareKeys,
  cut,
  folderOf,
  keyProblem,
  named,
  parentOf,
  segments,
} from "../src/lib/keys";

describe("compareKeys", () => {
  it("is the order of UTF-8 bytes", () => {
    const keys = ["", "a", "a/", "a/b", "b", "é", "\ud7ff", "\ue000", "\uffff", "😀", "\u{10ffff}"];
    const bytes = (key: string): string => Buffer.from(key).toString("latin1");
    const expected = [...keys].sort((a, b) =>
      bytes(a) < bytes(b) ? -1 : bytes(a) > bytes(b) ? 1 : 0,
    );
    expect([...keys].reverse().sort(compareKeys)).toEqual(expected);
  });
});

describe("keyProblem", () => {
  it.each([
    ["", "A key has at least one character."],
    ["a\0b", "A key cannot contain U+0000."],
    ["\ud800", "A key cannot contain half a character."],
    ["é".repeat(513), "1,026 bytes: at most 1,024."],
  ])("%j", (key, problem) => expect(keyProblem(key)).toBe(problem));
  it("accepts the rest", () => {
    expect(keyProblem("é".repeat(512))).toBeNull();
    expect(keyProblem("\u202e /?#%")).toBeNull();
  });
});

describe("segments", () => {
  it("boxes what would be invisible or turn its surroundings around", () => {
    expect(segments("notes-\u202efdp.exe")).toEqual([
      { text: "notes-", boxed: false },
      { text: "U+202E", boxed: true },
      { text: "fdp.exe", boxed: false },
    ]);
    expect(named("a\u0007b\u200b\u{e0041}")).toBe("a‹U+0007›b‹U+200B›‹U+E0041›");
    expect(segments("naïve 日本 😀").every((part) => !part.boxed)).toBe(true);
  });
});

it("cuts long keys before their last characters, never within one", () => {
  expect(cut("short")).toEqual(["short", ""]);
  const [head, tail] = cut("😀".repeat(30));
  expect([byteLength(head), [...tail].length]).toEqual([72, 12]);
});

it("knows folders", () => {
  expect([
    folderOf("a/b/c"),
    folderOf("a"),
    parentOf("a/b/"),
    parentOf("a/"),
    parentOf(""),
  ]).toEqual(["a/b/", "", "a/", "", ""]);
});

it("ends a prefix's range where the next one begins", () => {
  expect([
    afterPrefix("a/"),
    afterPrefix("\ud7ff"),
    afterPrefix("a\u{10ffff}"),
    afterPrefix(""),
  ]).toEqual(["a0", "\ue000", "b", null]);
});
