"""One request, one answer: sent once, and again only where that is safe.

A read may be sent again whatever happened. A write may not: if its answer was lost it may have been
made, and made again it could undo what somebody else wrote in between, also a plain set or delete.
So a write is sent again only if the connection was not even made, or if the server said that it did
nothing and may do it later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from typing import Final

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from tenantbase.client.errors import ClientError, ConnectionFailed, NotTrusted, OutcomeUnknown
from tenantbase.client.retrying import Answer, Interrupted, delay, failure_of, may_be_repeated

_IN_PIECES_FROM: Final = 64 << 10  # bytes; a larger body in one piece holds up the event loop
_NO_HEADERS: Final[Mapping[str, str]] = {}


class _Lost(Exception):
    """The connection was lost after the request was, or may have been, sent."""


async def send_once(
    request: aiohttp.ClientRequest, handler: ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending PUT and DELETE again when their answer is lost.

    It does so by itself, unless the error is one that it does not know.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(str(error)) from error


class Exchange:
    """Sends requests to one server.

    Args:
        session: where the connections are.
        watching: where those of streams are, which are held for long.
        base: the URL of the server, without a slash at its end.
        headers: sent with every request.
        timeout: seconds for a request with all its repetitions.
        connect_timeout: seconds for making a connection.
        attempts: how often a request is sent at most.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        watching: aiohttp.ClientSession,
        base: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        connect_timeout: float,
        attempts: int,
    ) -> None:
        self.session = session
        self.watching = watching
        self.base = base
        self.headers = headers
        self.connect_timeout = connect_timeout
        self._timeout = timeout
        self.attempts = attempts

    def url(self, target: str) -> URL:
        """The URL of a path and query that are percent-encoded. They stay as they are."""
        return URL(self.base + target, encoded=True)

    @asynccontextmanager
    async def stream(
        self, target: str, headers: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The lines of an answer to GET, while they come; they are taken inside the block.

        Args:
            silence: seconds without a byte after which the connection counts as lost.

        Raises:
            Interrupted: it may be tried again. Taking a line raises it, too.
            Refused, UnexpectedAnswer: it is of no use.
        """
        try:
            async with self.watching.get(
                self.url(target),
                headers={**self.headers, **headers},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.connect_timeout, sock_read=silence
                ),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    async with aclosing(_lines(response.content)) as lines:
                        yield lines
                    return
                answer = Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            raise _not_trusted(self.base, error) from error
        except (aiohttp.ClientError, OSError) as error:
            what = str(error) or f"nothing for {silence:g} s"
            raise Interrupted(ConnectionFailed(f"{self.base} does not answer: {what}")) from error
        failure = failure_of(answer, writes=False)
        raise Interrupted(failure, answer) if may_be_repeated(answer, failure, False) else failure

    async def read(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        also: int = 304,
    ) -> Answer:
        """Send a request that changes nothing.

        Args:
            also: a status above 299 that is an answer and no failure.

        Raises:
            ConnectionFailed, Refused, UnexpectedAnswer: in the end, of all attempts.
        """
        return await self._exchange(method, target, body, headers, also)

    async def write(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Answer:
        """Send a request that may change something.

        Raises:
            ConnectionFailed, Refused: nothing was changed.
            OutcomeUnknown, UnexpectedAnswer: it may have been.
        """
        return await self._exchange(method, target, body, headers, None)

    async def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        also: int | None,
    ) -> Answer:
        writes = also is None
        now = asyncio.get_running_loop().time
        deadline = now() + self._timeout
        attempt = 0
        while True:
            attempt += 1
            failure: ClientError
            try:
                answer = await self._once(method, target, body, headers, deadline - now(), writes)
            except NotTrusted:
                raise
            except ConnectionFailed as error:
                failure, wait = error, delay(attempt)
            else:
                if answer.status < 300 or answer.status == also:
                    return answer
                failure, wait = failure_of(answer, writes), delay(attempt, answer)
                if not may_be_repeated(answer, failure, writes):
                    raise failure
            if attempt == self.attempts or now() + wait >= deadline:
                raise failure
            await asyncio.sleep(wait)

    async def _once(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
        writes: bool,
    ) -> Answer:
        try:
            async with self.session.request(
                method,
                self.url(target),
                data=BytesIO(body) if body is not None and len(body) >= _IN_PIECES_FROM else body,
                headers={**self.headers, **headers},
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=self.connect_timeout),
                allow_redirects=False,
                middlewares=(send_once,),
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            raise _not_trusted(self.base, error) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ConnectionFailed(f"{self.base} does not answer: {error}") from error
        except (_Lost, aiohttp.ClientError, OSError) as error:
            what = str(error) or f"no answer within {seconds:.3g} s"
            if writes:
                raise OutcomeUnknown(
                    f"the answer of {self.base} to a write was lost; the write may or may not"
                    f" have been made: {what}"
                ) from error
            raise ConnectionFailed(f"{self.base} does not answer: {what}") from error


def _not_trusted(base: str, error: aiohttp.ClientConnectorCertificateError) -> NotTrusted:
    reason = error.certificate_error
    # OpenSSL's text has the name of a source file and a line in it.
    what = getattr(reason, "verify_message", "") or str(reason)
    return NotTrusted(f"the certificate of {base} cannot be verified: {what}")


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Lines without their ends; aiohttp's own way limits their length. The last one has an end."""
    begun: list[bytes] = []
    async for piece in content.iter_any():
        first, *others = piece.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            for line in others[:-1]:
                yield line
            begun = [others[-1]]
