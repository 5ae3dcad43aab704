// Reads of a real server that sends its answer bit by bit, on a clock that the test moves.

import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Api, Problem, Unreachable } from "../src/state/api";

const NEARLY_MILLISECONDS = 14_000;
const TOO_LONG_MILLISECONDS = 15_000;
let server: Server;
let answers: ServerResponse[];
let api: Api;

beforeEach(async () => {
  answers = [];
  server = createServer((_request, response) => {
    answers.push(response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  vi.stubGlobal("location", new URL(`http://127.0.0.1:${port}/#/t/default`));
  api = new Api();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  server.closeAllConnections();
  server.close();
});

/** Let the network do its work until a condition holds. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((done) => setImmediate(done));
}

async function request(number: number): Promise<ServerResponse> {
  await until(() => answers.length > number);
  return answers[number] as ServerResponse;
}

test("a read that goes on coming is not given up", async () => {
  const seen: number[] = [];
  const reading = api.send("GET", "v1/values").then(async (response) => {
    const reader = response.body?.getReader();
    for (;;) {
      const read = await reader?.read();
      if (!read || read.done) return;
      seen.push(read.value.length);
    }
  });
  const answer = await request(0);
  for (let part = 1; part <= 4; part++) {
    answer.write("x");
    await until(() => seen.length === part);
    await vi.advanceTimersByTimeAsync(NEARLY_MILLISECONDS);
  }
  answer.end();
  await reading;
  expect(seen).toEqual([1, 1, 1, 1]);
});

test("a read without an answer is given up", async () => {
  const reading = api.json("GET", "v1/values").catch((error: unknown) => error);
  await request(0);
  await vi.advanceTimersByTimeAsync(TOO_LONG_MILLISECONDS);
  expect(await reading).toBeInstanceOf(Unreachable);
});

test.each(["stalls", "breaks"])("a read whose answer %s half-way says so", async (how) => {
  const reading = api.json("GET", "v1/values").catch((error: unknown) => error);
  const answer = await request(0);
  let sent = false;
  answer.writeHead(200, { "Content-Type": "application/json" });
  answer.write('{"values": [', () => (sent = true));
  await until(() => sent);
  if (how === "breaks") answer.destroy();
  else
    // Whichever comes first, the piece or the clock, the read ends.
    for (let i = 0; i < 3; i++) {
      await new Promise((done) => setImmediate(done));
      await vi.advanceTimersByTimeAsync(TOO_LONG_MILLISECONDS);
    }
  expect(await reading).toBeInstanceOf(Unreachable);
});

test("a write is never given up", async () => {
  const writing = api.post("set-value", "{}");
  const answer = await request(0);
  await vi.advanceTimersByTimeAsync(10 * TOO_LONG_MILLISECONDS);
  answer.end('{"key": "a"}');
  expect(await writing).toEqual({ key: "a" });
});

test("an answer without a body is one", async () => {
  const deleting = api.send("DELETE", "v1/tokens/1");
  const answer = await request(0);
  answer.writeHead(204).end();
  await deleting;
});

test("a read that is asked to wait says how long, and is sent once more", async () => {
  let busyUntil = 0;
  api.onBusy = (at) => (busyUntil = at);
  const reading = api.json("GET", "v1/values");
  (await request(0)).writeHead(429, { "Retry-After": "2" }).end("{}");
  await until(() => busyUntil > 0);
  await vi.advanceTimersByTimeAsync(2000);
  (await request(1)).end('{"values": []}');
  expect(await reading).toEqual({ values: [] });
});

test("a write that is refused is not sent again", async () => {
  const writing = api.post("set-value", "{}").catch((error: unknown) => error);
  (await request(0)).writeHead(429, { "Retry-After": "2" }).end("{}");
  expect(await writing).toBeInstanceOf(Problem);
  await vi.advanceTimersByTimeAsync(5000);
  expect(answers.length).toBe(1);
});

test("deleted entries keep the bytes that were stored", async () => {
  const deleting = api.remove(["a", "b", "c", "d"]);
  const answer = await request(0);
  answer.end(
    '{"deleted":4,"values":[' +
      '{"key":"\\"value\\":,\\"id\\":","value": [1.0, "],{"]\n,"id":"u","version":7,"expires_at":null},' +
      '{"key":"b","value":"/wA=","id":"u","version":8,"expires_at":1.5,"encoding":"base64","content_type":"image/png"},' +
      '{"key":"c","value":"\\u00e9\\n","id":"u","version":9,"expires_at":null,"encoding":"utf-8","content_type":"text/plain"},' +
      '{"key":"d","value":12345678901234567890,"id":"u","version":10,"expires_at":null}]}',
  );
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  const [a, b, c, d] = await deleting;
  expect(a?.key).toBe('"value":,"id":');
  expect(text(a?.bytes as Uint8Array)).toBe(' [1.0, "],{"]\n');
  expect([...(b?.bytes ?? [])]).toEqual([255, 0]);
  expect(b).toMatchObject({ contentType: "image/png", version: 8, expiresAt: 1.5 });
  expect(text(c?.bytes as Uint8Array)).toBe("é\n");
  expect(text(d?.bytes as Uint8Array)).toBe("12345678901234567890");
});

test("nothing was deleted", async () => {
  const deleting = api.remove(["a"]);
  (await request(0)).end('{"deleted":0,"values":[]}');
  expect(await deleting).toEqual([]);
});
