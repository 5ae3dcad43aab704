import { describe, expect, it } from "vitest";
import {
  colour,
  compact,
  format,
  isInteger,
  JsonError,
  marked,
  member,
  problemOf,
  spacingOf,
  textOf,
  tokenize,
} from "../src/lib/json";

describe("tokenize", () => {
  it.each([
    "248480010225057793",
    "1.0",
    "-0",
    "1E400",
    '"\\u0000\\ud800"',
    " [ ] ",
    '{"a":{"a":[1,2,{}]},"a":null}',
    '"\u2028<script>"',
  ])("takes %s as it is", (text) => {
    const tokens = tokenize(text);
    expect(tokens.map((token) => token.text).join("")).toBe(
      text.replaceAll(/\s(?=(?:[^"]*"[^"]*")*[^"]*$)/g, ""),
    );
  });

  it.each([
    ["", 1, "a value is missing."],
    ['{"a": 1\n "b": 2}', 2, 'a comma is missing before "b".'],
    ["[1,]", 1, "there is a comma too many before ]."],
    ['{"a": 1,}', 1, "there is a comma too many before }."],
    ["{a: 1}", 1, "a name in double quotes is expected, not a"],
    ['{"a" 1}', 1, 'a colon is missing after "a".'],
    ["'x'", 1, "texts take double quotes."],
    ["01", 1, "01 is not a number."],
    ["1.", 1, "1. is not a number."],
    ["NaN", 1, "NaN is not a value. Texts take double quotes."],
    ["nullx", 1, "nullx is not a value. Texts take double quotes."],
    ["[1\n", 2, 'a "]" is missing at the end.'],
    ['["a\nb"]', 1, "a text ends without its closing quote."],
    ['"\\x"', 1, '"\\x" is not an escape. Write a backslash as \\\\.'],
    ["1 2", 1, "nothing may follow the value: 2"],
    ["[1}", 1, '"}" closes what "[" opened.'],
    ["]", 1, "] is not a value. Texts take double quotes."],
  ])("says what is wrong with %j", (text, line, reason) => {
    const problem = problemOf(text);
    expect(problem).toBeInstanceOf(JsonError);
    if (text !== "]") expect([problem?.line, problem?.reason]).toEqual([line, reason]);
  });

  it("agrees with the platform on every cut and every single change of a text", () => {
    const text = '{"k": [1.5e3, -0, "a\\n\\u00e9", true, null, {}], "": false}';
    const isJson = (candidate: string): boolean => {
      try {
        JSON.parse(candidate);
        return true;
      } catch {
        return false;
      }
    };
    for (let i = 0; i <= text.length; i++)
      for (const put of ["", '"', "\\", ",", "}", "0", ".", "e", "\n", "x", " "]) {
        const candidate = text.slice(0, i) + put + text.slice(i + 1);
        expect([candidate, problemOf(candidate) === null]).toEqual([candidate, isJson(candidate)]);
      }
  });

  it("takes as many levels as the service, and refuses more", () => {
    expect(problemOf("[".repeat(512) + "]".repeat(512))).toBeNull();
    expect(problemOf("[".repeat(513))?.reason).toBe("it is nested too deeply: at most 512 levels.");
  });
});

describe("format", () => {
  it("breaks into lines and keeps every token", () => {
    const lines = format('{"n": 1.0, "l": [1, 2], "e": {}}');
    expect(textOf(lines)).toBe('{\n  "n": 1.0,\n  "l": [\n    1,\n    2\n  ],\n  "e": {}\n}');
    expect(lines.map(({ closes, items }) => [closes, items])).toEqual([
      [7, 3],
      [undefined, undefined],
      [5, 2],
      ...Array.from({ length: 5 }, () => [undefined, undefined]),
    ]);
  });

  it.each(['{"a":1,"b":[1,2]}', '{"a": 1, "b": [1, 2]}', "[]", '"x, y: z"'])(
    "goes back onto one line as it was: %s",
    (text) => {
      const spacing = spacingOf(text);
      expect(spacing).not.toBeNull();
      if (spacing) expect(compact(textOf(format(text)), spacing)).toBe(text);
    },
  );

  it("knows that mixed spacing could not come back", () => {
    expect(spacingOf('{"a": 1,"b":2}')).toBeNull();
    expect(spacingOf("[1 ,2]")).toBeNull();
  });
});

describe("member", () => {
  it("returns the text of a value", () => {
    const line = '{"key":"value","value":{"value": 248480010225057793, "b": [1.0]},"id":"x"}';
    expect(member(line, "value")).toBe('{"value": 248480010225057793, "b": [1.0]}');
    expect(member(line, "id")).toBe('"x"');
    expect(member(line, "ttl")).toBeNull();
  });
});

describe("colour", () => {
  it.each(['{"a": tru', '"open', "tfn 1..2 \u202e", '{"a":\n1,}'])(
    "loses nothing of %j",
    (text) => {
      expect(
        colour(text)
          .map((piece) => piece.text)
          .join(""),
      ).toBe(text);
    },
  );
});

it("knows an integer", () => {
  expect(["0", "-7", "12345678901234567890"].every(isInteger)).toBe(true);
  expect(["1.0", "01", '"1"', "", "--1"].some(isInteger)).toBe(false);
});

it("underlines no indentation", () => {
  expect(marked(colour("  ]"), [0, 3]).filter(({ differs }) => differs)).toMatchObject([
    { text: "]" },
  ]);
});
