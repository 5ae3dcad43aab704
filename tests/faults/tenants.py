"""Two tenants whose clients use the same key names, and an administrator who never rests.

The administrator closes the database, gives each tenant's clients a token, and then makes and
revokes tokens, and changes the limits of a third tenant, whose own clients write as much as they
can. What it finds broken goes to ``broken``.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, closing
from typing import Any, Final

import msgspec

from tenantbase.interfaces.sqlite.usage import recount
from tests.faults.cluster import Cluster
from tests.faults.excuses import Excuses
from tests.faults.history import Operation, describe
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.values import token_of
from tests.wire import Answer

FIRST: Final = "default"
SECOND: Final = "second"
TENANTS: Final = (FIRST, SECOND)
_LIMITED: Final = "limited"

_PROMISED_SECONDS: Final = 1.0  # until a revocation holds everywhere
_SLACK_SECONDS: Final = 2.0  # for an overloaded machine
_CONNECTIONS: Final = 6  # to each server, so that most likely every worker has one
_ANSWER_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.03
_RETRY_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.3
_LIMITED_CLIENTS: Final = 3
_LIMITED_KEYS: Final = 30
_MAX_ENTRIES: Final = (4, 8, 12)
_MAX_BYTES: Final = (1_000, 3_000, None)
_VALUE_BYTES: Final = 400


def client_name(tenant: str, name: str) -> str:
    """The name of a tenant's client, which begins every value that it writes."""
    return f"{tenant}-{name}"


def belongs(token: str, tenant: str) -> bool:
    """Whether a value with this token was written in this tenant.

    The command line and guests, too, write in the first tenant.
    """
    owner, _, _ = token.partition("-")
    return owner == tenant or (tenant == FIRST and owner not in (SECOND, _LIMITED))


def foreign(operation: Operation, tenant: str) -> bool:
    """Whether the answer to this tenant's client had a value of another tenant."""
    if operation.kind != "get" or not isinstance(operation.value, str):
        return False
    return not belongs(operation.value, tenant)


class Administrator:
    """Administers tenants and tokens while the servers are tortured.

    Args:
        keys: the keys that clients currently use.

    Attributes:
        tokens: for each tenant's clients, by tenant.
        broken: broken promises, a line each.
        revoked, refused: how many tokens were revoked, and how many writes exceeded a quota.
        slowest: seconds until the slowest revocation or new token held at a server without excuse.
    """

    def __init__(
        self,
        cluster: Cluster,
        excuses: Excuses,
        chance: random.Random,
        keys: Callable[[], dict[str, list[str]]],
    ) -> None:
        self._cluster = cluster
        self._excuses = excuses
        self._chance = chance
        self._keys = keys
        self._secret = ""
        self.tokens: dict[str, str] = {}
        self.broken: list[str] = []
        self.revoked = 0
        self.refused = 0
        self.slowest = 0.0

    async def close_database(self) -> None:
        """Make the tenants, and tokens for their clients. From now on requests need a token."""
        self._secret = (await self._made({"scope": "admin"}))["token"]
        for tenant in (*TENANTS, _LIMITED):
            if tenant != FIRST:
                assert await self._ask("PUT", f"/v1/tenants/{tenant}", {})
            made = await self._made({"scope": "write", "tenant": tenant})
            self.tokens[tenant] = made["token"]
        self._cluster.token = self.tokens[FIRST]
        # Clients must not be refused because a worker has yet to learn of their token, and there is
        # no way to ask every worker.
        await asyncio.sleep(_PROMISED_SECONDS + _SLACK_SECONDS / 2)

    async def administer(self, stop: asyncio.Event) -> None:
        """Make and revoke tokens and change limits, until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._change_limits(stop))
            for number in range(_LIMITED_CLIENTS):
                group.create_task(self._fill(number, stop))
            while not stop.is_set():
                await self._make_and_revoke()
                await asyncio.sleep(self._chance.expovariate(1 / _PAUSE_SECONDS))

    def recount(self) -> None:
        """Compare what the database has counted with its rows."""
        with closing(sqlite3.connect(self._cluster.database)) as connection:
            self.broken += [f"miscounted: {mismatch}" for mismatch in recount(connection)]

    # Tokens

    async def _make_and_revoke(self) -> None:
        tenant = self._chance.choice(TENANTS)
        scope = self._chance.choice(("read", "write"))
        made = await self._made({"scope": scope, "tenant": tenant})
        created = time.monotonic()
        async with AsyncExitStack() as stack:
            clients = await self._connections(stack, made["token"])
            await self._all_effective(clients, tenant, created, admitted=True)
            await self._ask("DELETE", f"/v1/tokens/{made['id']}")
            self.revoked += 1
            await self._all_effective(clients, tenant, time.monotonic(), admitted=False)

    async def _connections(self, stack: AsyncExitStack, token: str) -> list[HttpClient]:
        return [
            await stack.enter_async_context(HttpClient(port, _ANSWER_SECONDS, token))
            for port in self._cluster.ports
            for _ in range(_CONNECTIONS)
        ]

    async def _all_effective(
        self, clients: Iterable[HttpClient], tenant: str, since: float, *, admitted: bool
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(self._effective(client, tenant, since, admitted=admitted))

    async def _effective(
        self, client: HttpClient, tenant: str, since: float, *, admitted: bool
    ) -> None:
        """Read until the server admits the token, or refuses it.

        Args:
            since: when that was acknowledged, in seconds of the monotonic clock.
        """
        deadline = since + _PROMISED_SECONDS + _SLACK_SECONDS
        while True:
            began = time.monotonic()
            status = await self._read(client, tenant)
            ended = time.monotonic()
            if status and (status != 401) == admitted:
                if not self._excused(since, ended, client.port):
                    self.slowest = max(self.slowest, began - since)
                return
            if began > deadline:
                if not self._excused(since, ended, client.port):
                    what = "new token was not known" if admitted else "revoked token was admitted"
                    self.broken.append(
                        f"a {what} by port {client.port} after {began - since:.1f} s: {status}"
                    )
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _read(self, client: HttpClient, tenant: str) -> int:
        """Read keys that both tenants have. Returns: the status; 0: there was no answer."""
        body = msgspec.json.encode({"keys": self._keys()["registers"]})
        try:
            answer = await client.ask("POST", "/get-values", body)
        except (NotSent, NoAnswer):
            return 0
        if answer.status == 200:
            for entry in answer.json["values"]:
                token = token_of(entry["value"])
                if not belongs(token, tenant):
                    self.broken.append(f"{tenant} was given {entry['key']} with value {token}")
        return answer.status

    # Limits

    async def _change_limits(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            limits = {
                "max_entries": self._chance.choice(_MAX_ENTRIES),
                "max_bytes": self._chance.choice(_MAX_BYTES),
                "max_requests_per_second": self._chance.choice((None, None, 100)),
            }
            await self._ask("PUT", f"/v1/tenants/{_LIMITED}", limits)
            allowed: dict[str, int] = {}
            for _ in range(self._chance.randint(1, 8)):
                answer = await self._ask("GET", "/v1/tenants")
                usage = next(t for t in answer.json["tenants"] if t["name"] == _LIMITED)
                for name in ("entries", "bytes"):
                    limit = limits[f"max_{name}"]
                    if limit is None:
                        continue
                    # What was there before the limit may stay, but must not grow.
                    most = allowed.setdefault(name, max(limit, usage[name]))
                    if usage[name] > most:
                        self.broken.append(f"{usage[name]} {name} where {most} were allowed")
                    allowed[name] = max(limit, usage[name])
                await asyncio.sleep(self._chance.expovariate(1 / _PAUSE_SECONDS))

    async def _fill(self, number: int, stop: asyncio.Event) -> None:
        """Write to the limited tenant more than it may have."""
        chance = random.Random(f"{self._chance.random()} {number}")
        async with AsyncExitStack() as stack:
            clients = await self._connections(stack, self.tokens[_LIMITED])
            while not stop.is_set():
                method, target, body = self._change(chance, client_name(_LIMITED, str(number)))
                try:
                    answer = await chance.choice(clients).ask(method, target, body)
                except (NotSent, NoAnswer):
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if answer.status == 507 and "limit" in answer.json:
                    self.refused += 1
                elif answer.status in (401, 403):
                    self.broken.append(f"a valid token was refused: {answer}")
                await asyncio.sleep(chance.expovariate(1 / _RETRY_SECONDS))

    def _change(self, chance: random.Random, value: str) -> tuple[str, str, bytes]:
        """A request that changes a few of the limited tenant's keys."""
        keys = [f"r0/{n}" for n in chance.sample(range(_LIMITED_KEYS), 3)]
        size = chance.randrange(_VALUE_BYTES)
        text = f"{value} {size} {'x' * size}"
        # None expires: what has expired counts until it is swept, although it is beyond no limit.
        values = [{"key": key, "value": text} for key in keys]
        match chance.choices(range(5), (6, 3, 1, 2, 1))[0]:
            case 0:
                return "POST", "/set-value", msgspec.json.encode(values[0])
            case 1:
                return "POST", "/set-values", msgspec.json.encode({"values": values})
            case 2:
                return "POST", "/increment-value", msgspec.json.encode({"key": f"n0/{keys[0]}"})
            case 3:
                return "DELETE", f"/delete-value?key={keys[0]}", b""
            case _:
                return "POST", "/delete-values", msgspec.json.encode({"prefix": keys[0][:4]})

    # Requests of the administrator

    async def _made(self, token: dict[str, str]) -> Any:
        return (await self._ask("POST", "/v1/tokens", {"name": "torture"} | token)).json

    async def _ask(self, method: str, target: str, body: object = None) -> Answer:
        """Ask one of the servers, until one succeeds.

        A request without an answer may have been carried out. All of these may be carried out
        twice.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        while True:
            port = self._chance.choice(self._cluster.ports)
            begin = time.monotonic()
            what = "no answer"
            async with HttpClient(port, _ANSWER_SECONDS, self._secret) as client:
                try:
                    answer = await client.ask(method, target, data)
                    if answer.status < 400:
                        return answer
                    what = str(answer)
                except (NotSent, NoAnswer) as error:
                    what = str(error)
            # The first administrator's token has reached all workers only after a moment.
            if not self._excused(begin, time.monotonic(), port) and self.tokens.keys() >= {
                *TENANTS
            }:
                self.broken.append(f"the administrator's {method} {target} failed: {what}")
            await asyncio.sleep(_RETRY_SECONDS)

    def _excused(self, begin: float, end: float, port: int) -> bool:
        return self._excuses.failure(int(begin * 1e9), int(end * 1e9), port, write=True)


def told(operation: Operation, tenant: str) -> str:
    """One line about an operation of a tenant's client, to which a foreign value was given."""
    return f"{tenant} was given a value of another tenant: {describe(operation)}"
