// The count of a folder, which the service may give in several parts.

import { afterEach, expect, test, vi } from "vitest";
import { api, type Counted } from "../src/state/api";
import { countAll } from "../src/state/count.svelte";

afterEach(() => vi.restoreAllMocks());

test("a count goes on until all keys are counted", async () => {
  const parts: Counted[] = [
    { count: 65_000, bytes: 10, at_least: true, cursor: "a" },
    { count: 30_000, bytes: 20, at_least: true, cursor: "b" },
    { count: 5_000, bytes: 30 },
  ];
  const asked: (string | null)[] = [];
  vi.spyOn(api, "count").mockImplementation((_prefix, cursor) => {
    asked.push(cursor);
    return Promise.resolve(parts[asked.length - 1] as Counted);
  });
  const told: Counted[] = [];
  const whole = await countAll("k/", new AbortController().signal, (part) => told.push(part));
  expect(asked).toEqual([null, "a", "b"]);
  expect(whole).toEqual({ count: 100_000, bytes: 60 });
  expect(told.map(({ count, at_least }) => [count, at_least ?? false])).toEqual([
    [65_000, true],
    [95_000, true],
    [100_000, false],
  ]);
});
