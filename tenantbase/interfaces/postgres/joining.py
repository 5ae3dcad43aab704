"""Joining: finds the primary among the servers, checks it, and opens a session.

All servers are asked at once. Of those that are not in recovery, the one on the highest timeline is
tried first: a deposed primary is on a lower one. The transaction that opens the term waits for the
synchronous standby, which a deposed primary never hears from.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.postgres.address import DatabaseAddress, Host
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import SessionLost, WrongTerm
from tenantbase.interfaces.postgres.schema import migrate
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.postgres.survey import (
    CONFIRM,
    ERRORS,
    FACTS,
    NO_ANSWER,
    Found,
    check_confirms,
    check_settings,
    deadline,
    primaries_of,
    standby_of,
    survey,
    why,
)
from tenantbase.interfaces.shared_store import Term
from tenantbase.troubles import Trouble

_TERM_POSITIONS: Final = 1 << 20
"""A new term skips a multiple of this many positions: a deposed primary may have given out some of
them."""

EPOCH_BYTES: Final = 16
# The name by which a standby is known to its primary. Only roles with pg_read_all_settings see
# the connection that it was configured with; without a name there, it is the cluster's.
_CALLED: Final = """
    SELECT current_setting('cluster_name'), CASE
        WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')
        THEN current_setting('primary_conninfo') END
"""
_APPLICATION: Final = re.compile(r"\bapplication_name\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
_ESCAPED: Final = re.compile(r"\\(.)")
_SECRET: Final = "SELECT secret FROM state"
_CLOCK: Final = "SELECT position, epoch FROM clock FOR UPDATE"
_TERM: Final = "SELECT epoch FROM terms WHERE system = $1 AND timeline = $2"
_TERMS: Final = "SELECT epoch, inherited FROM terms ORDER BY number DESC"
_NEW_TERM: Final = "INSERT INTO terms (system, timeline, epoch, inherited) VALUES ($1, $2, $3, $4)"
_ADVANCE: Final = "UPDATE clock SET position = $1, epoch = $2"


class Sizes(NamedTuple):
    """How many connections of each kind a session has."""

    askers: int = 2
    readers: int = 2
    listers: int = 2


DEFAULT_SIZES: Final = Sizes()


class Joiner:
    """Opens sessions.

    Args:
        address: of the database.
        confirm: how answers are confirmed, which decides whether standbys are asked.
        replicated: there must be a synchronous standby.
        timeout: seconds for each server to answer.
        write_timeout, read_timeout: seconds, for waits in the server.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        confirm: Confirm,
        *,
        replicated: bool,
        timeout: float,
        write_timeout: float,
        read_timeout: float,
        sizes: Sizes,
    ) -> None:
        self._address = address
        self._confirm = confirm
        self._replicated = replicated
        self._timeout = timeout
        self._sizes = sizes
        self._secret: bytes | None = None
        self._writing = {
            "lock_timeout": _milliseconds(write_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(2.0),
            "tcp_user_timeout": _milliseconds(5.0),
            "tcp_keepalives_idle": "5",
            # The server ends a statement that was given up, which releases the lock. It does not end a
            # COMMIT.
            "client_connection_check_interval": _milliseconds(1.0),
        }
        # A list that takes too long is ended by the server: it costs no session.
        self._reading = {**self._writing, "statement_timeout": _milliseconds(read_timeout * 0.5)}

    async def join(self) -> Session:
        """Open a session with the primary.

        Raises:
            CannotOpen: one line that names the servers and says why.
        """
        opened: list[Connection] = []
        try:
            session = await self._join(opened)
        except BaseException:
            for connection in opened:
                connection.terminate("the node could not join")
            raise
        self._secret = session.secret
        used = set(map(id, session.all))
        for connection in opened:
            if id(connection) not in used:
                connection.terminate("it is not needed")
        return session

    async def _join(self, opened: list[Connection]) -> Session:
        hosts = self._address.hosts
        answers = await survey(
            hosts, partial(self._connect, opened=opened, settings=self._writing), self._timeout
        )
        found = [answer for answer in answers if isinstance(answer, Found)]
        problems = [answer for answer in answers if isinstance(answer, str)]
        primaries = primaries_of(found)
        if found and not primaries:
            problems.append("all servers that answer are standbys")
        trouble: Trouble | None = None
        for server in primaries:
            try:
                return await self._open(server, found, opened)
            except ERRORS as error:
                problems.append(f"{server.connection.host}: {why(error)}")
                trouble = trouble or getattr(error, "trouble", None)
        failure = CannotOpen(f"cannot open {self._address}: {'; '.join(problems)}")
        failure.trouble = trouble
        raise failure

    async def _open(
        self, server: Found, found: Sequence[Found], opened: list[Connection]
    ) -> Session:
        check_settings(server)
        standby = standby_of(server) if self._replicated else ""
        writer = server.connection
        try:
            with deadline(writer, self._timeout):
                await migrate(writer)
                ((secret,),) = await writer.fetch(_SECRET)
                if self._secret not in (None, secret):
                    raise CannotOpen("it has another database of this name")
                terms = await self._open_term(server)
        except SessionLost:
            if standby and writer.ended == NO_ANSWER:
                again = await self._connect(server.connection.host, opened, self._reading)
                await check_confirms(again, standby, self._timeout)
            raise
        more = [
            await self._again(server, opened)
            for _ in range(self._sizes.askers + self._sizes.readers + self._sizes.listers)
        ]
        witnesses = await self._find_witnesses(standby, server, found, opened)
        askers, rest = more[: self._sizes.askers], more[self._sizes.askers :]
        return Session(
            system=server.system,
            timeline=server.timeline,
            secret=secret,
            terms=terms,
            standby=standby,
            writer=writer,
            askers=askers,
            readers=rest[: self._sizes.readers],
            listers=rest[self._sizes.readers :],
            witnesses=witnesses,
        )

    async def _open_term(self, server: Found) -> list[Term]:
        """Take the lock, and insert the server's term if it is new. Returns: all, newest first."""
        connection = server.connection
        # Even if the server is read-only by default: once its term is known, reads continue.
        async with connection.transaction("READ WRITE"):
            ((position, epoch),) = await connection.fetch(_CLOCK)
            known = await connection.fetch(_TERM, server.system, server.timeline)
            if not known:
                first = epoch is None
                epoch = secrets.token_bytes(EPOCH_BYTES)
                await connection.fetch(_NEW_TERM, server.system, server.timeline, epoch, position)
                start = position if first else begins_after(Term(epoch, position))
                await connection.fetch(_ADVANCE, start, epoch)
            elif known[0][0] != epoch:
                raise WrongTerm("a newer server has been the primary of this database")
            terms = [Term(*row) for row in await connection.fetch(_TERMS)]
            if self._confirm is not Confirm.NONE:
                await connection.fetch(CONFIRM)
        return terms

    async def _again(self, server: Found, opened: list[Connection]) -> Connection:
        """One more connection to the same server."""
        connection = await self._connect(server.connection.host, opened, self._reading)
        with deadline(connection, self._timeout):
            ((in_recovery, system, *_, timeline),) = await connection.fetch(FACTS)
        if in_recovery or (system, int(timeline, 16)) != (server.system, server.timeline):
            raise WrongTerm("the name leads to several servers")
        return connection

    async def _find_witnesses(
        self, standby: str, server: Found, found: Sequence[Found], opened: list[Connection]
    ) -> list[Connection]:
        """Connections to the synchronous standby, if standbys are asked and it can be told apart."""
        if self._confirm is not Confirm.STANDBY or not standby:
            return []
        for other in found:
            if other.in_recovery and other.system == server.system:
                try:
                    with deadline(other.connection, self._timeout):
                        ((cluster, conninfo),) = await other.connection.fetch(_CALLED)
                    if _called(cluster, conninfo).lower() == standby.lower():
                        host = other.connection.host
                        more = self._sizes.askers + self._sizes.readers + self._sizes.listers - 1
                        return [
                            other.connection,
                            *[
                                await self._connect(host, opened, self._reading)
                                for _ in range(more)
                            ],
                        ]
                except ERRORS:
                    continue  # it is asked by COMMIT
        return []

    async def _connect(
        self, host: Host, opened: list[Connection], settings: dict[str, str]
    ) -> Connection:
        connection = await Connection.open(self._address, host, self._timeout, **settings)
        opened.append(connection)
        return connection


def begins_after(term: Term) -> int:
    """A term's positions begin after this one, unless it is the first term of a database.

    Its distance from what the term inherited depends on the epoch, which is random. An operator who
    accepts a loss may promote two servers in turn that know nothing of each other: with the same
    distance, the second would give out the first one's positions again.
    """
    return term.inherited + _TERM_POSITIONS * (1 + int.from_bytes(term.epoch[:2], "big"))


def _called(cluster_name: str, conninfo: str | None) -> str:
    """The name by which a standby is known to its primary."""
    found = _APPLICATION.search(conninfo or "")
    if found is None:
        return cluster_name or "walreceiver"
    return found[2] if found[1] is None else _ESCAPED.sub(r"\1", found[1])


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
