"""Three PostgreSQL servers: a primary, its synchronous standby, and a spare one.

`Promoter` takes Patroni's part, in Patroni's order, but within seconds and whenever a test says so.
The rules are those of ``synchronous_mode_strict`` with one synchronous standby:

- only the *candidate* is promoted: the standby whose confirmation commits wait for;
- before commits wait for another standby, there is no candidate any more;
- the new standby becomes the candidate once it has everything that the primary had at the time when
  commits began to wait for it;
- without a standby, commits wait: a new primary never acknowledges anything alone.

A deposed primary goes on running, and answering, until its place is needed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final, Self

from tests.cluster.engine import role_settings, settings
from tests.postgres import PostgresProcess
from tests.servers import READY_SECONDS, poll

NAMES: Final = ("one", "two", "three")
_ANY: Final = "*"


class Server(PostgresProcess):
    """One of the servers, known by its name to the others."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(**settings())


class Promoter:
    """The servers, and their roles. A context manager.

    Its methods block, for seconds, and are called one at a time.

    Args:
        servers: three; none: new ones on this machine.

    Attributes:
        servers: all of them.
        primary: the current one.
        candidate: the only server that may be promoted; None: none may.
        spare: neither the primary nor its standby; it may still be answering.
    """

    def __init__(self, *servers: Server) -> None:
        self.servers = servers or tuple(Server(name) for name in NAMES)
        self.primary, self._standby, self.spare = self.servers
        self.candidate: Server | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.__exit__)
            self.primary.__enter__()
            self.primary.sql(role_settings())
            self._follow(self._standby)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def fail_over(self, *, keep_spare: bool = False) -> None:
        """Promote the candidate. Nobody asks the primary, which may be dead, or stopped.

        Args:
            keep_spare: the deposed primary becomes the standby, instead of the spare server.

        Raises:
            AssertionError: there is no candidate.
        """
        chosen = self.candidate
        assert chosen is not None, "no server may be promoted"
        self._promote(chosen)
        # The deposed primary keeps running while the one before it takes its place.
        self._standby, self.spare = self.spare, self.primary
        if keep_spare:
            self._standby, self.spare = self.spare, self._standby
        self.primary = chosen
        self._follow(self._standby)

    def attach_spare(self) -> None:
        """Make the spare server an asynchronous standby that has everything the primary has now."""
        if self.spare.runs:
            self.spare.kill()
        self.spare.copy(self.primary, self.spare.name)
        self.spare.start()
        self._await_flush(self.spare, "async")

    def give_up(self) -> None:
        """Promote the spare server, as an operator may decide, although it has not received all
        commits.

        The primary and its standby are dead. The standby becomes the new primary's.
        """
        self.candidate = None
        self._promote(self.spare)
        self.primary, self.spare = self.spare, self.primary
        self._follow(self._standby)

    def _promote(self, server: Server) -> None:
        self.candidate = None
        server.configure(synchronous_standby_names=_ANY)
        server.promote()

    def replace_standby(self) -> None:
        """Let the spare server take the standby's place. The standby may be dead, or stopped."""
        self.candidate = None
        self.primary.configure(synchronous_standby_names=_ANY)
        self._standby, self.spare = self.spare, self._standby
        self._follow(self._standby)

    def _follow(self, server: Server) -> None:
        """Make a server, in whatever state it is, the synchronous standby and the candidate."""
        if server.runs:
            server.kill()
        server.copy(self.primary, server.name)
        server.start()
        self.primary.configure(synchronous_standby_names=server.name)
        self._await_flush(server, "sync")
        self.candidate = server

    def _await_flush(self, server: Server, state: str) -> None:
        """Wait until a standby has flushed everything that the primary has now."""
        flushed = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        question = (
            "SELECT count(*) FROM pg_stat_replication"
            f" WHERE application_name = '{server.name}' AND sync_state = '{state}'"
            f" AND flush_lsn >= '{flushed}'"
        )
        poll(lambda: self.primary.sql(question) == "1", f"{server.name} is {state}", READY_SECONDS)
