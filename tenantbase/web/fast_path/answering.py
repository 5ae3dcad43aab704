"""Answers to plain requests: the same bytes as on aiohttp's path, without its cost."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from tenantbase.commands import Applied
from tenantbase.database import Database
from tenantbase.documents import LARGE_BYTES
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SET_VALUE as SET_BODY
from tenantbase.json_text import parse
from tenantbase.lookup import Lookup
from tenantbase.scope import DEFAULT
from tenantbase.web.answer import Answer
from tenantbase.web.fast_path.parser import DELETE_VALUE, GET_VALUE, RAW_VALUE, SET_VALUE, Request
from tenantbase.web.fast_path.writer import ResponseWriter
from tenantbase.web.handlers.health import Health
from tenantbase.web.problems import error_answer
from tenantbase.web.responses import deleted, entry_answer, raw_answer
from tenantbase.web.transport.unread import SMALL_ANSWER_BYTES, Unread


class Asker(Protocol):
    """The connection of a plain request, which has one request in flight at a time."""

    def end(self, data: bytes, closes: bool = False) -> None:
        """Send the answer; ``closes``: the connection ends with it."""

    def hand_on(self) -> None:
        """Have the request answered by aiohttp instead."""


class PlainAnswers:
    """Answers the plain requests of all connections."""

    def __init__(
        self, database: Database, health: Health, writer: ResponseWriter, unread: Unread
    ) -> None:
        self._unread = unread
        self._database = database
        self._health = health
        self._writer = writer

    def begin(self, request: Request, asker: Asker) -> bool:
        """Begin a request. Its answer is sent after this has returned.

        Returns: False if it is invalid. Then aiohttp's path must tell the client why.
        """
        route = request.route
        try:
            if route is GET_VALUE:
                key = request.key
                self._database.get_then(DEFAULT, key, partial(self._got_entry, asker, key))
            elif route is RAW_VALUE:
                self._database.get_then(DEFAULT, request.key, partial(self._got_raw, asker))
            elif route is SET_VALUE:
                given = parse(SET_BODY, request.body)
                self._database.set_then(DEFAULT, given, partial(self._written, asker, given.key))
            elif route is DELETE_VALUE:
                self._database.delete_then(DEFAULT, request.key, partial(self._deleted, asker))
            else:
                health = asyncio.get_running_loop().create_task(self._health.state())
                health.add_done_callback(partial(self._got_health, asker))
        except InvalidRequest:
            return False
        return True

    def _got_entry(self, asker: Asker, key: str, result: Lookup | Exception) -> None:
        if isinstance(result, Exception):
            self._send(asker, error_answer(result))
        elif result.entry is None:
            self._send(asker, entry_answer(key, result))
        elif len(result.entry.value) > SMALL_ANSWER_BYTES and self._waits(result.entry.value):
            asker.hand_on()
        else:
            asker.end(self._writer.entry(key, result.entry, result.cache_status))

    def _got_raw(self, asker: Asker, result: Lookup | Exception) -> None:
        if isinstance(result, Exception):
            self._send(asker, error_answer(result))
        else:
            self._send(asker, raw_answer(result))

    def _written(self, asker: Asker, key: str, result: Applied | BaseException) -> None:
        if isinstance(result, BaseException):
            self._send(asker, error_answer(result))
        else:
            asker.end(self._writer.written(key, result))

    def _deleted(self, asker: Asker, result: Applied | BaseException) -> None:
        answer = error_answer(result) if isinstance(result, BaseException) else deleted()
        self._send(asker, answer)

    def _got_health(self, asker: Asker, state: asyncio.Future[Answer]) -> None:
        error = state.exception()
        self._send(asker, state.result() if error is None else error_answer(error))

    def _send(self, asker: Asker, answer: Answer) -> None:
        body = answer.body
        if isinstance(body, bytes) and (len(body) <= SMALL_ANSWER_BYTES or not self._waits(body)):
            asker.end(self._writer.answer(answer), answer.closes)
        else:
            asker.hand_on()

    def _waits(self, value: bytes) -> bool:
        """Whether only aiohttp's path can answer with this: in pieces, or after a wait for room."""
        return len(value) > LARGE_BYTES or not self._unread.has_room(len(value))
