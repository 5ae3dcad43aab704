import { describe, expect, it } from "vitest";
import { areaPath, ceiling, linePath } from "../src/lib/chart";
import { quote, readCommand } from "../src/lib/curl";
import { diff, within } from "../src/lib/diff";
import * as format from "../src/lib/format";
import { formatRoute, parseRoute, type KeysRoute } from "../src/lib/route";
import { EventParser, LineSplitter } from "../src/lib/streams";
import { fileName, kindOf } from "../src/lib/types";

describe("figures", () => {
  it.each([
    [0, "0 B"],
    [379, "379 B"],
    [1126, "1.1 KiB"],
    [429_916_160, "410 MiB"],
    [2 ** 30, "1 GiB"],
  ])("%d bytes are %s", (value, text) => expect(format.bytes(value)).toBe(text));
  it.each([
    [40.2, "0:41"],
    [1784, "29:44"],
    [7120, "1:58:40"],
    [540_000, "6 d 6 h"],
    [86_400 * 400, "1 y 35 d"],
    [-5, "0:00"],
  ])("%d s are %s", (value, text) => expect(format.countdown(value)).toBe(text));
  it.each([
    ["30s", 30],
    ["1.5h", 5400],
    ["1d 12h", 129_600],
    ["soon", null],
    ["5", null],
    ["0s", null],
  ])("%s is %s s", (text, value) => expect(format.parseDuration(text)).toBe(value));
  it.each([
    ["512", 512],
    ["64 KiB", 65_536],
    ["1.5G", 1_610_612_736],
    ["lots", null],
  ])("%s is %s bytes", (text, value) => expect(format.parseBytes(text)).toBe(value));
});

describe("routes", () => {
  const base: KeysRoute = {
    place: "keys",
    tenant: "default",
    prefix: "",
    key: null,
    mode: "view",
    filter: "",
    all: false,
    desc: false,
  };
  it.each<KeysRoute>([
    base,
    { ...base, prefix: "user/42/", filter: "pr", all: true, desc: true },
    { ...base, prefix: "user/", key: "user/1" },
    { ...base, prefix: "", key: "user/1", mode: "edit" },
    { ...base, tenant: "acme", prefix: "a", key: "a%2F?#&=\u202e\n😀" },
    { ...base, prefix: "u/", mode: "new", key: "u/x" },
  ])("come back from the address: %j", (route) => {
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });
  it("are as short as people expect", () => {
    expect(formatRoute({ ...base, prefix: "user/", key: "user/1" })).toBe("#/t/default/k/user%2F1");
    expect(parseRoute("#/t/default/k/user%2F1")).toMatchObject({ key: "user/1", prefix: "user/" });
  });
  it("lead to the start if they mean nothing", () => {
    for (const hash of ["", "#", "#/t", "#/x/y", "#/t//k/a"])
      expect(parseRoute(hash)).toEqual({ place: "start" });
    expect(parseRoute("#/t/a/k/%E0%A4%A")).toMatchObject({ key: "%E0%A4%A" });
  });
});

describe("streams", () => {
  it("find events however they are cut", () => {
    const text =
      ': watching\nretry: 1000\nid: 7\n\nevent: set\nid: 8\ndata: {"key":"é"}\n\n: alive\nid: 9\n\n';
    for (let i = 0; i <= text.length; i++) {
      const parser = new EventParser();
      const events = [...parser.push(text.slice(0, i)), ...parser.push(text.slice(i))];
      expect(events).toEqual([
        { event: "", data: "", id: "7" },
        { event: "set", data: '{"key":"é"}', id: "8" },
        { event: "", data: "", id: "9" },
      ]);
    }
  });
  it("split lines", () => {
    const lines = new LineSplitter();
    expect([...lines.push("a\r\nb"), ...lines.push("c\n"), lines.end()]).toEqual(["a", "bc", ""]);
  });
});

describe("diff", () => {
  it("finds the lines that differ", () => {
    const left = ["{", "a", "b", "c", "}"];
    const right = ["{", "a", "x", "y", "c", "}"];
    expect(diff(left, right)).toEqual([{ leftFrom: 2, leftTo: 3, rightFrom: 2, rightTo: 4 }]);
    expect(diff(left, left)).toEqual([]);
    expect(diff([], ["a"])).toEqual([{ leftFrom: 0, leftTo: 0, rightFrom: 0, rightTo: 1 }]);
  });
  it("turns one side into the other", () => {
    const left = [..."abcabba"];
    const right = [..."cbabac"];
    const patched = [...left];
    for (const hunk of diff(left, right).reverse())
      patched.splice(
        hunk.leftFrom,
        hunk.leftTo - hunk.leftFrom,
        ...right.slice(hunk.rightFrom, hunk.rightTo),
      );
    expect(patched).toEqual(right);
  });
  it("gives up on lines that have nothing in common in time", () => {
    const many = (name: string): string[] => Array.from({ length: 5000 }, (_, i) => `${name}${i}`);
    expect(diff(many("a"), many("b"))).toHaveLength(1);
  });
  it("marks what differs within a line", () => {
    expect(within('"seats": 12,', '"seats": 25,')).toEqual([9, 11]);
    expect(within("same", "same")).toEqual([4, 4]);
  });
});

describe("shell", () => {
  const where = { base: "http://localhost:8000/", token: false, tenant: null };
  it("quotes what a shell would read otherwise", () => {
    expect(quote("plain/a.b")).toBe("plain/a.b");
    expect(quote("it's $HOME")).toBe("'it'\\''s $HOME'");
    expect(quote("a\nb'")).toBe("$'a\\x0ab\\''");
  });
  it("writes commands", () => {
    expect(readCommand("user/42", where)).toBe("curl localhost:8000/v1/values/user%2F42");
    expect(readCommand("..", where)).toBe("curl 'localhost:8000/get-value?key=..'");
    expect(readCommand("a", { ...where, token: true, tenant: "acme" })).toBe(
      `curl localhost:8000/v1/values/a -H "Authorization: Bearer $TENANTBASE_TOKEN" -H 'X-Tenant: acme'`,
    );
  });
});

describe("types", () => {
  it.each([
    ["application/json; charset=utf-8", "json"],
    ["text/html", "text"],
    ["image/svg+xml", "text"],
    ["image/png", "image"],
    ["image/tiff", "bytes"],
    ["", "bytes"],
  ])("%s is %s", (type, kind) => expect(kindOf(type)).toBe(kind));
  it("names files harmlessly", () => {
    expect(fileName("user/42/avatar", "image/png")).toBe("avatar.png");
    expect(fileName("a/..\u202e<b>", "application/octet-stream")).toBe(".._" + "_b_.bin");
    expect(fileName("notes.md", "text/plain")).toBe("notes.md");
  });
});

describe("charts", () => {
  it("draw lines with gaps from the right", () => {
    expect(linePath([0, null, 10], 3, 0, 10)).toBe("M0.0 100.0M300.0 0.0");
    expect(linePath([5, 10], 3, 0, 10)).toBe("M150.0 50.0L300.0 0.0");
    expect(areaPath("M150.0 50.0L300.0 0.0")).toBe("M150.0 50.0L300.0 0.0L300.0 100L150.0 100Z");
  });
  it("end their axes at round figures", () => {
    expect([ceiling(0, 10), ceiling(11, 10), ceiling(1474, 10), ceiling(3, 1)]).toEqual([
      10, 20, 2000, 5,
    ]);
  });
});
