"""Watching: a stream of events that outlives the connections it comes over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from tenantbase.client.errors import UnexpectedAnswer
from tenantbase.client.events import Block, BlockReader
from tenantbase.client.exchange import Exchange
from tenantbase.client.results import Changed, Event, Reset
from tenantbase.client.retrying import Interrupted, delay

_SILENCE: Final = 45.0  # seconds; the server gives a sign of life about every 15
_RETRY: Final = 1.0  # seconds, until the server says something else

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


_data = msgspec.json.Decoder(_Data)


async def watch(exchange: Exchange, prefix: str, after: int | None) -> AsyncGenerator[Event, None]:
    """The events of keys with a prefix; see ``Client.watch``."""
    target = f"/v1/watch?prefix={quote(prefix, safe='')}"
    headers = {"Accept": "text/event-stream"}
    if after is not None:
        headers[_LAST_EVENT_ID] = str(after)
    connected = False
    retry = _RETRY
    failures = 0  # in a row
    while True:
        answer = None
        try:
            async with exchange.stream(target, headers, _SILENCE) as lines:
                connected, failures = True, 0
                reader = BlockReader()
                async for line in lines:
                    if (block := reader.take(line)) is None:
                        continue
                    # Before the event is handed out: whoever has it is past it.
                    if block.id is not None:
                        headers[_LAST_EVENT_ID] = block.id
                    if block.retry is not None:
                        retry = block.retry
                    if (event := _event(block)) is not None:
                        yield event
        except Interrupted as interrupted:
            if not connected and failures + 1 >= exchange.attempts:
                raise interrupted.failure from interrupted
            answer = interrupted.answer
        failures += 1
        await asyncio.sleep(retry * random.uniform(0.5, 1.0) + delay(failures, answer))


def _event(block: Block) -> Event | None:
    """The event in a block; None: there is none, or none of a kind that is known."""
    if block.data is None:
        return None
    try:
        data = _data.decode(block.data)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(f"an event that cannot be read: {error}") from error
    if block.event == "reset":
        return Reset(data.prefix, data.version)
    kind = _KINDS.get(block.event)
    return None if kind is None else Changed(kind, data.key, data.version)
