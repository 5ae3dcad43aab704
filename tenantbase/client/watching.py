"""Watching: a stream of events that outlives the connections it comes over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final, Literal
from urllib.parse import quote

import aiohttp
import msgspec

from tenantbase.client.errors import ConnectionFailed, UnexpectedAnswer
from tenantbase.client.events import Block, BlockReader
from tenantbase.client.exchange import Exchange
from tenantbase.client.results import Changed, Event, Reset
from tenantbase.client.retrying import Answer, delay, failure_of, may_be_repeated

_SILENCE: Final = 45.0  # seconds; the server gives a sign of life about every 15
_RETRY: Final = 1.0  # seconds, until the server says something else

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
    url = exchange.url(f"/v1/watch?prefix={quote(prefix, safe='')}")
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=exchange.connect_timeout, sock_read=_SILENCE
    )
    position = None if after is None else str(after)
    connected = False
    retry = _RETRY
    failures = 0  # in a row
    while True:
        headers = {**exchange.headers, "Accept": "text/event-stream"}
        if position is not None:
            headers["Last-Event-ID"] = position
        answer = None
        try:
            async with exchange.session.get(
                url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status == 200:
                    connected, failures = True, 0
                    reader = BlockReader()
                    async for line in response.content:
                        if (block := reader.take(line)) is None:
                            continue
                        # Before the event is handed out: whoever has it is past it.
                        position = position if block.id is None else block.id
                        retry = retry if block.retry is None else block.retry
                        if (event := _event(block)) is not None:
                            yield event
                    failure: Exception = ConnectionFailed(f"{exchange.base} ended the stream")
                else:
                    answer = Answer(response.status, response.headers, await response.read())
                    failure = failure_of(answer, writes=False)
                    if not may_be_repeated(answer, failure, writes=False):
                        raise failure
        except (aiohttp.ClientError, OSError) as error:
            failure = ConnectionFailed(f"cannot watch {exchange.base}: {error}")
        failures += 1
        if not connected and failures >= exchange.attempts:
            raise failure
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
