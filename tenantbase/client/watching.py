"""Watching: a stream of events that survives lost connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from tenantbase.client.errors import UnexpectedAnswer
from tenantbase.client.exchange import Exchange
from tenantbase.client.results import Changed, Event, Reset
from tenantbase.client.retrying import Interrupted, retry_delay
from tenantbase.client.sse import Block, BlockReader

_SILENCE_SECONDS: Final = 45.0  # the server sends a comment about every 15 s
_RETRY_SECONDS: Final = 1.0  # unless the server sets another

_LAST_EVENT_ID: Final = "Last-Event-ID"

_KINDS: Final[dict[str, Literal["set", "delete", "expire"]]] = {
    "set": "set",
    "delete": "delete",
    "expire": "expire",
}


class _Data(msgspec.Struct, frozen=True):
    version: int
    key: str = ""
    prefix: str = ""
    size: int | None = None
    content_type: str | None = None
    expires_at: int | float | None = None


_data = msgspec.json.Decoder(_Data)


async def watch(exchange: Exchange, prefix: str, after: int | None) -> AsyncGenerator[Event, None]:
    """The changes of keys with a prefix; see ``Client.watch``."""
    target = f"/v1/watch?prefix={quote(prefix, safe='')}"
    headers = {"Accept": "text/event-stream"}
    if after is not None:
        headers[_LAST_EVENT_ID] = str(after)
    connected = False
    retry = _RETRY_SECONDS
    retries = exchange.retries()
    failures = 0  # in a row
    while True:
        answer = None
        try:
            async with exchange.stream(target, headers, _SILENCE_SECONDS) as lines:
                connected, failures = True, 0
                reader = BlockReader()
                async for line in lines:
                    if (block := reader.take(line)) is None:
                        continue
                    # Before yielding: once the caller has the event, don't ask for it again.
                    if block.id is not None:
                        headers[_LAST_EVENT_ID] = block.id
                    if block.retry is not None:
                        retry = block.retry
                    if (event := _event(block)) is not None:
                        yield event
        except Interrupted as interrupted:
            answer = interrupted.answer
            if not connected and retries.delay(interrupted.failure, answer) is None:
                raise interrupted.failure from interrupted
        failures += 1
        await asyncio.sleep(retry * random.uniform(0.5, 1.0) + retry_delay(failures, answer))


def _event(block: Block) -> Event | None:
    """The event in a block; None if it holds none, or one of an unknown kind."""
    if block.data is None:
        return None
    try:
        data = _data.decode(block.data)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(f"the event cannot be read: {error}") from error
    if block.event == "reset":
        return Reset(data.prefix, data.version)
    kind = _KINDS.get(block.event)
    if kind is None:
        return None
    return Changed(kind, data.key, data.version, data.size, data.content_type, data.expires_at)
