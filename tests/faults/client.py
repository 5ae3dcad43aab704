"""Clients of the servers under test: one process with several clients, which records what they saw.

    python -m tests.faults.client CONFIG

The configuration is JSON, see ``Config``. Finished operations go to standard output, one line of
JSON each. A line with a number, nanoseconds of the monotonic clock, says that every operation that
began before that time has been written. The process ends once its time is up, or when its standard
input ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from tests.faults.history import NEVER, Kind, Operation, Outcome
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.lists import KeyList, drawn
from tests.faults.values import made, token_of
from tests.wire import Answer

REGISTERS: Final = 6
COUNTERS: Final = 2
MORTALS: Final = 2
# Stands for the entry in an answer that is not JSON, or in an impossible list; no client writes it.
DAMAGED: Final[dict[str, Any]] = {
    "version": 0,
    "id": "damaged",
    "value": "damaged",
    "expires_at": None,
}
_MOST_CONNECTIONS: Final = 3
_MOST_ROUNDS: Final = 3
_RETRY: Final = 0.2  # seconds between attempts to reach a server that is down


class Config(msgspec.Struct, frozen=True):
    """The configuration of one process of clients.

    Attributes:
        name: prefix of its clients' names and of the values they write.
        ports: of the servers.
        clients, readers: the number of clients, and how many of them never write.
        begin: when all processes begin, in seconds of the monotonic clock.
        seconds: for how long.
        slice_seconds: after this long all clients move on to new keys, so that no history grows
            long.
        pause: average seconds between two operations of a client.
        token: of the tenant that they belong to; empty: the servers need none.
        patience: seconds that a client waits for an answer. By default, longer than all timeouts of the
            service.
    """

    name: str
    ports: list[int]
    seed: int
    clients: int
    readers: int
    begin: float
    seconds: float
    slice_seconds: float
    pause: float
    token: str = ""
    patience: float = 40.0


def keys_of(number: int) -> dict[str, list[str]]:
    """The keys of a slice: registers, counters, and mortals, which expire."""
    return {
        "registers": [f"r{number}/{i}" for i in range(REGISTERS)],
        "counters": [f"n{number}/{i}" for i in range(COUNTERS)],
        "mortals": [f"t{number}/{i}" for i in range(MORTALS)],
    }


def slice_of(key: str) -> int:
    """The number of the slice that a key belongs to."""
    return int(key[1:].partition("/")[0])


class Client:
    """One client, which sends one request at a time.

    Args:
        number: among the clients of its process.
        seen: the newest version of each key that any client of this process knows.

    Attributes:
        done: finished operations that have yet to be collected.
        busy_since: when the operation in flight began.
        go_on: no operation begins while this is not set.
    """

    def __init__(self, config: Config, number: int, seen: dict[str, int]) -> None:
        self.name = f"{config.name}{number}"
        self._config = config
        self._seen = seen
        self._chance = random.Random(f"{config.seed} {self.name}")
        self._number = 0
        self._step = self.read if number < config.readers else self.step
        self.servers = [HttpClient(port, config.patience, config.token) for port in config.ports]
        self.done: list[Operation] = []
        self.busy_since = NEVER
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def run(self) -> None:
        """Send requests until the time is up."""
        config = self._config
        await asyncio.sleep(config.begin - time.monotonic())
        try:
            while True:
                await self.go_on.wait()
                # Set before the keys are chosen: their slice is not checked without this operation.
                self.busy_since = time.monotonic_ns()
                now = time.monotonic() - config.begin
                if now >= config.seconds:
                    break
                await self._step(keys_of(int(now / config.slice_seconds)))
                self.busy_since = NEVER
                await asyncio.sleep(self._chance.expovariate(1 / config.pause))
            self.busy_since = NEVER
        finally:
            for server in self.servers:
                server.close()

    async def step(self, keys: dict[str, list[str]]) -> None:
        """Do one operation, on one of the servers."""
        chance = self._chance
        server = chance.choice(self.servers)
        register, counter = chance.choice(keys["registers"]), chance.choice(keys["counters"])
        match chance.choices(range(12), (40, 22, 6, 4, 5, 6, 4, 3, 1, 0.5, 1, 0.5))[0]:
            case 0:
                await self.get(server, chance.choice((register, register, register, counter)))
            case 1:
                await self.set(server, register)
            case 2:
                await self.delete(server, register)
            case 3:
                await self.delete(server, counter)
            case 4:
                await self.get_many(server, keys["registers"])
            case 5:
                await self.increment(server, counter)
            case 6:
                mortal = chance.choice(keys["mortals"])
                await (self.set if chance.random() < 0.2 else self.get)(server, mortal)
            case 7:
                await self.set_many(server, chance.sample(keys["registers"], 2))
            case 8:
                keys_ = chance.sample(keys["registers"], 2)
                await self.delete_many(server, keys_, {"keys": keys_})
            case 9:
                await self.delete_many(
                    server, keys["registers"], {"prefix": register.partition("/")[0] + "/"}
                )
            case 10:
                await self.list_often(server, drawn(chance, keys))
            case _:
                await self.vanish(server, register)
                server.close()  # another worker may accept the next connection

    async def read(self, keys: dict[str, list[str]]) -> None:
        """Do one operation that changes nothing."""
        server = self._chance.choice(self.servers)
        if self._chance.random() < 0.01:
            await self.list_often(server, drawn(self._chance, keys))
        else:
            await self.get(server, self._chance.choice([*keys["registers"], *keys["counters"]]))

    async def get(self, server: HttpClient, key: str) -> None:
        await self._ask(server, "GET", f"/get-value?key={key}", None, [self._op(key, "get")])

    async def get_many(self, server: HttpClient, keys: list[str]) -> None:
        operations = [self._op(key, "get") for key in keys]
        await self._ask(server, "POST", "/get-values", {"keys": keys}, operations)

    async def list_often(self, server: HttpClient, asked: KeyList) -> None:
        """Ask for a list again and again, on several connections, as clients that poll do.

        A page is remembered only until the next commit, which is rarely more than milliseconds away.
        """
        chance, config = self._chance, self._config
        rounds = chance.randint(1, _MOST_ROUNDS)
        async with AsyncExitStack() as stack:
            servers = [server]
            for _ in range(chance.randrange(_MOST_CONNECTIONS)):
                another = HttpClient(server.port, config.patience, config.token)
                servers.append(await stack.enter_async_context(another))
            await asyncio.gather(*(self._poll(each, asked, rounds) for each in servers))

    async def _poll(self, server: HttpClient, asked: KeyList, rounds: int) -> None:
        for _ in range(rounds):
            page: KeyList | None = asked
            while page is not None and self.go_on.is_set():
                page = await self.list_page(server, page)
            await asyncio.sleep(self._chance.expovariate(1 / self._config.pause))

    async def list_page(self, server: HttpClient, asked: KeyList) -> KeyList | None:
        """Ask for a page of a list. Returns: the next one."""
        operations = [
            msgspec.structs.replace(self._op(key, "get"), listed=True) for key in asked.keys
        ]
        answer = await self._answer(server, "GET", asked.target, b"", operations, asked.accept)
        if answer is None:
            return None
        following = None
        shown: dict[str, dict[str, Any] | None] = dict.fromkeys(asked.keys)
        try:
            if answer.status == 200:
                shown, following = asked.shown(answer), asked.following(answer)
        except ValueError as error:
            shown = dict.fromkeys(asked.keys, DAMAGED)
            operations = [
                msgspec.structs.replace(operation, detail=str(error)) for operation in operations
            ]
        for operation in operations:
            if operation.key in shown:
                outcome = _outcome(answer, operation)
                self._note(operation, server, outcome, answer, shown[operation.key])
        return following

    async def set(self, server: HttpClient, key: str) -> None:
        body = self._new_value(key)
        body |= self._condition(key)
        await self._ask(server, "POST", "/set-value", body, [self._setting(body)])

    async def set_many(self, server: HttpClient, keys: list[str]) -> None:
        values = [self._new_value(key) for key in keys]
        operations = [self._setting(each) for each in values]
        await self._ask(server, "POST", "/set-values", {"values": values}, operations)

    async def increment(self, server: HttpClient, key: str) -> None:
        await self._ask(
            server, "POST", "/increment-value", {"key": key}, [self._op(key, "increment")]
        )

    async def delete(self, server: HttpClient, key: str) -> None:
        operation = self._op(key, "delete")
        target = f"/delete-value?key={key}"
        if key in self._seen and self._chance.random() < 0.3:
            operation = msgspec.structs.replace(operation, if_version=self._seen[key])
            target += f"&if_version={self._seen[key]}"
        await self._ask(server, "DELETE", target, None, [operation])

    async def delete_many(
        self, server: HttpClient, keys: list[str], body: dict[str, str | list[str]]
    ) -> None:
        operations = [self._op(key, "delete") for key in keys]
        await self._ask(server, "POST", "/delete-values", body, operations)

    async def vanish(self, server: HttpClient, key: str) -> None:
        """Begin to set a value, and disconnect during the request or just before the answer."""
        body = self._new_value(key)
        operation = self._setting(body)
        sent = self._chance.choice((1.0, self._chance.random()))
        try:
            await server.vanish("POST", "/set-value", msgspec.json.encode(body), sent)
        except NotSent:
            return
        self._note(operation, server, "unknown", vanished=True)

    def _op(self, key: str, kind: Kind) -> Operation:
        return Operation(key, kind, time.monotonic_ns(), NEVER, "unknown", client=self.name)

    def _new_value(self, key: str) -> dict[str, Any]:
        self._number += 1
        body: dict[str, Any] = {
            "key": key,
            "value": made(f"{self.name}-{self._number}", self._chance),
        }
        if key.startswith("t"):
            body["ttl"] = round(self._chance.uniform(0.2, 2.0), 3)
        return body

    def _condition(self, key: str) -> dict[str, Any]:
        if self._chance.random() < 0.1:
            return {"if_absent": True}
        if key in self._seen and self._chance.random() < 0.3:
            return {"if_version": self._seen[key]}
        return {}

    def _setting(self, body: dict[str, Any]) -> Operation:
        return msgspec.structs.replace(
            self._op(body["key"], "set"),
            value=token_of(body["value"]),
            if_absent=body.get("if_absent", False),
            if_version=body.get("if_version"),
        )

    async def _ask(
        self, server: HttpClient, method: str, target: str, body: Any, operations: list[Operation]
    ) -> None:
        data = b"" if body is None else msgspec.json.encode(body)
        answer = await self._answer(server, method, target, data, operations)
        if answer is None:
            return
        try:
            entries = _entries(answer)
        except ValueError:  # not JSON
            entries = {operation.key: DAMAGED for operation in operations}
        for operation in operations:
            outcome = _outcome(answer, operation)
            self._note(operation, server, outcome, answer, entries.get(operation.key))

    async def _answer(
        self,
        server: HttpClient,
        method: str,
        target: str,
        data: bytes,
        operations: list[Operation],
        accept: str = "",
    ) -> Answer | None:
        """The answer to a request. None: there was none, and the operations are noted."""
        try:
            return await server.ask(method, target, data, accept)
        except NotSent:
            for operation in operations:
                self._note(operation, server, "failed")
            await asyncio.sleep(_RETRY)
        except NoAnswer:
            for operation in operations:
                lost: Outcome = "failed" if operation.kind == "get" else "unknown"
                self._note(operation, server, lost)
        return None

    def _note(
        self,
        operation: Operation,
        server: HttpClient,
        outcome: Outcome,
        answer: Answer | None = None,
        entry: dict[str, Any] | None = None,
        *,
        vanished: bool = False,
    ) -> None:
        now = time.monotonic_ns()
        told: dict[str, Any] = {"outcome": outcome, "port": server.port, "heard": now}
        told["end"] = NEVER if outcome == "unknown" else now
        told["vanished"] = vanished
        if answer is not None:
            told |= {"status": answer.status, "cache": answer.headers.get("X-Cache", "")}
            if outcome in ("failed", "unknown"):
                told["detail"] = answer.json["detail"]
        if outcome == "ok" and entry is not None:
            told |= {name: entry[name] for name in ("version", "id")}
            told["created"] = entry.get("created", False)
            if "value" in entry:
                value = entry["value"]
                told["value"] = value if isinstance(value, int) else token_of(value)
            if entry["expires_at"] is not None:
                # Computed each time, because the two clocks drift apart within an hour.
                wall = time.time() - time.monotonic()
                told["expires"] = int((entry["expires_at"] - wall) * 1e9)
            self._seen[operation.key] = entry["version"]
        self.done.append(msgspec.structs.replace(operation, **told))


def _entries(answer: Answer) -> dict[str, dict[str, Any]]:
    """The state of each key, according to the answer."""
    if answer.status != 200:
        return {}
    document = answer.json
    entries = document["values"] if "values" in document else [document]
    return {entry["key"]: entry for entry in entries if "key" in entry}


def _outcome(answer: Answer, operation: Operation) -> Outcome:
    if answer.status in (200, 201, 204):
        return "ok"
    problem = answer.json["type"].rpartition(":")[2]
    if answer.status == 404 and problem == "no-such-key":
        return "ok"
    if problem == "condition-failed":
        return "refused"
    if problem == "outcome-unknown" or (answer.status == 500 and operation.kind != "get"):
        return "unknown"
    if answer.status in (429, 503, 507) or answer.status == 500:
        return "failed"
    raise AssertionError(f"{operation} was answered with {answer}")


async def _run(config: Config) -> None:
    seen: dict[str, int] = {}
    clients = [Client(config, n, seen) for n in range(config.clients)]
    working = [asyncio.create_task(client.run()) for client in clients]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    told_to_end = asyncio.create_task(reader.read())
    try:
        running = True
        while running:
            finished, _ = await asyncio.wait([*working, told_to_end], timeout=0.2)
            for task in finished:
                task.result()
            running = told_to_end not in finished and not finished.issuperset(working)
            told = min(time.monotonic_ns(), *(client.busy_since for client in clients))
            for client in clients:
                for operation in client.done:
                    sys.stdout.buffer.write(msgspec.json.encode(operation) + b"\n")
                client.done.clear()
            sys.stdout.buffer.write(b"%d\n" % (told if running else NEVER))
            sys.stdout.buffer.flush()
    finally:
        for task in (*working, told_to_end):
            task.cancel()


def main() -> None:
    asyncio.run(_run(msgspec.json.decode(sys.argv[1], type=Config)))


if __name__ == "__main__":
    main()
