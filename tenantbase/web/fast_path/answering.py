"""Answers to plain requests: the same bytes as on aiohttp's path, without its cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from tenantbase.auth.directory import Directory
from tenantbase.commands import Applied
from tenantbase.database import Database
from tenantbase.documents import LARGE_BYTES, values_json
from tenantbase.errors import Forbidden, InvalidRequest, RateLimited, TenantbaseError
from tenantbase.json_requests import GET_VALUES as GET_BODY
from tenantbase.json_requests import SET_VALUE as SET_BODY
from tenantbase.json_text import parse
from tenantbase.lookup import Lookup
from tenantbase.request_context import RequestContext
from tenantbase.web.answer import Answer
from tenantbase.web.caller import Credentials
from tenantbase.web.fast_path.pages import Document, Pages, Recipient
from tenantbase.web.fast_path.parser import (
    GET_VALUE,
    GET_VALUES,
    HEALTH,
    LIST,
    RAW_VALUE,
    SET_VALUE,
    Request,
)
from tenantbase.web.fast_path.writer import ResponseWriter
from tenantbase.web.handlers.health import Health
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.problems import error_answer
from tenantbase.web.responses import make_private, raw_answer
from tenantbase.web.sending import COMPRESSED_FROM_BYTES
from tenantbase.web.transport.budget import Budget
from tenantbase.web.transport.unread import SMALL_ANSWER_BYTES

# How large the answers to bulk reads may be, at most, by whether the client has long ones compressed.
_MOST_BYTES: Final = {False: SMALL_ANSWER_BYTES, True: COMPRESSED_FROM_BYTES - 1}


class Asker(Recipient, Protocol):
    """The connection of a plain request, which has one request in flight at a time."""

    def end(self, data: bytes, status: int, closes: bool = False) -> None:
        """Send the answer; ``closes``: then close the connection."""

    def hand_on(self) -> None:
        """Have the request answered by aiohttp instead."""


class PlainAnswers:
    """Answers the plain requests of all connections."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        health: Health,
        writer: ResponseWriter,
        lifecycle: Lifecycle,
        pages: Pages,
    ) -> None:
        self._pages = pages
        self._lifecycle = lifecycle
        self._unread = lifecycle.connections.unread
        self._database = database
        self._directory = directory
        self._health = health
        self._writer = writer

    def begin(self, request: Request[Credentials], asker: Asker) -> bool:
        """Begin a request. Its answer is sent after this has returned.

        Returns: False if aiohttp's path must answer it: it is invalid, or reads many values.
        """
        route = request.route
        if route is HEALTH:
            health = asyncio.get_running_loop().create_task(self._health.state())
            health.add_done_callback(partial(self._got_health, asker))
            return True
        lifecycle = self._lifecycle
        credentials = request.verdict
        if lifecycle.active >= lifecycle.limit:
            self._refuse_later(asker, credentials, lifecycle.overloaded())
            return True
        if credentials.generation != self._directory.generation:
            credentials.look_up()
        caller = credentials.caller
        if caller is None:
            return False
        if caller.bucket is not None and (wait := caller.bucket.take()):
            self._refuse_later(asker, credentials, RateLimited(caller.bucket.rate, wait))
            return True
        if caller.use is not None and not lifecycle.has_place(caller.use, begun=0):
            self._refuse_later(asker, credentials, lifecycle.overloaded())
            return True
        scope = caller.scope
        begun = True
        try:
            # Lambdas, because creating a partial takes twice as long, for every request.
            if route is GET_VALUE:
                key = request.key
                self._database.get_then(
                    scope, key, lambda result: self._got_entry(asker, credentials, key, result)
                )
            elif route is RAW_VALUE:
                self._database.get_then(
                    scope, request.key, lambda result: self._got_raw(asker, credentials, result)
                )
            elif route is SET_VALUE:
                given = parse(SET_BODY, request.body)
                key = given.key  # the value is not kept while the write waits
                self._database.set_then(
                    scope, given, lambda result: self._written(asker, credentials, key, result)
                )
            elif route is GET_VALUES:
                keys = parse(GET_BODY, request.body).keys
                # What is expected may be half of that: documents are longer than the values in them, and
                # those may have grown. An answer that is too large after all is read a second time.
                begun = self._database.get_few_then(
                    scope,
                    keys,
                    _MOST_BYTES[credentials.compresses] // 2,
                    lambda keys, result: self._got_entries(asker, credentials, keys, result),
                )
            elif route is LIST:
                begun = self._pages.begin(
                    request.query,
                    caller,
                    credentials.compresses,
                    asker,
                    lambda result: self._got_page(asker, credentials, result),
                )
            else:
                self._database.delete_then(
                    scope, request.key, lambda result: self._deleted(asker, credentials, result)
                )
        except (InvalidRequest, Forbidden):
            begun = False
        if not begun:
            _uncount(credentials)
        return begun

    def no_room(self, budget: Budget) -> bytes:
        """The answer to a request whose body there is no room for."""
        return self._writer.answer(error_answer(budget.exceeded()))

    def _refuse_later(self, asker: Asker, credentials: Credentials, error: TenantbaseError) -> None:
        """Answer with an error once ``begin`` has returned."""
        asyncio.get_running_loop().call_soon(self._refuse, asker, credentials, error)

    def _got_entry(
        self, asker: Asker, credentials: Credentials, key: str, result: Lookup | Exception
    ) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
        elif result.entry is None:
            asker.end(self._writer.absent(result.cache_status, credentials.private), 404)
        elif len(result.entry.value) > SMALL_ANSWER_BYTES and self._waits(
            credentials, result.entry.value
        ):
            _uncount(credentials)
            asker.hand_on()
        else:
            private = credentials.private
            asker.end(self._writer.entry(key, result.entry, result, private), 200)

    def _got_entries(
        self,
        asker: Asker,
        credentials: Credentials,
        keys: Sequence[str],
        result: Sequence[Lookup] | Exception,
    ) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
            return
        most = _MOST_BYTES[credentials.compresses]
        body = values_json(keys, result, most) if len(result) == len(keys) else None
        if body is not None:
            asker.end(self._writer.collection([body], credentials.private), 200)
            return
        _uncount(credentials)
        asker.hand_on()

    def _got_page(
        self, asker: Asker, credentials: Credentials, result: Document | Exception | None
    ) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
        elif result is None:
            _uncount(credentials)
            asker.hand_on()
        else:
            asker.end(self._writer.collection(result, credentials.private), 200)

    def _got_raw(self, asker: Asker, credentials: Credentials, result: Lookup | Exception) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
        elif result.entry is None:
            asker.end(self._writer.absent(result.cache_status, credentials.private), 404)
        else:
            self._send(asker, credentials, raw_answer(result))

    def _written(
        self, asker: Asker, credentials: Credentials, key: str, result: Applied | Exception
    ) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
        else:
            asker.end(self._writer.written(key, result, credentials.private), 200)

    def _deleted(self, asker: Asker, credentials: Credentials, result: Applied | Exception) -> None:
        if isinstance(result, Exception):
            self._refuse(asker, credentials, result)
        else:
            asker.end(self._writer.deleted(credentials.private), 204)

    def _got_health(self, asker: Asker, state: asyncio.Future[Answer]) -> None:
        error = state.exception()
        answer = state.result() if error is None else _failed(asker, error)
        asker.end(self._writer.answer(answer), answer.status, answer.closes)

    def _refuse(self, asker: Asker, credentials: Credentials, error: BaseException) -> None:
        self._send(asker, credentials, _failed(asker, error))

    def _send(self, asker: Asker, credentials: Credentials, answer: Answer) -> None:
        body = answer.body
        if isinstance(body, bytes) and (
            len(body) <= SMALL_ANSWER_BYTES or not self._waits(credentials, body)
        ):
            if credentials.private:
                make_private(answer.headers)
            asker.end(self._writer.answer(answer), answer.status, answer.closes)
        else:
            _uncount(credentials)
            asker.hand_on()

    def _waits(self, credentials: Credentials, value: bytes) -> bool:
        """Whether only aiohttp's path can send this answer: in pieces, or after a wait for room."""
        size = len(value)
        return size > LARGE_BYTES or not self._unread.has_room(size, credentials.use)


def _failed(asker: Asker, error: BaseException) -> Answer:
    """The answer to a request that failed. Its id is also the one in the log."""
    asker.context = asker.context or RequestContext()
    return error_answer(error, asker.context)


def _uncount(credentials: Credentials) -> None:
    """Undo the rate count: aiohttp's path answers the request, and counts it itself."""
    caller = credentials.caller
    if caller is not None and caller.bucket is not None:
        caller.bucket.give_back()
