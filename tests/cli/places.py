"""Where the commands on tenants and tokens run: on a database, or over HTTP as its administrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from click.testing import Result

from tests.app_server import AppServer
from tests.cli.test_main import run


class Place:
    """Runs commands with the variables that lead them to one database.

    Attributes:
        database: its file.
        server: the server of it; None if the commands open it themselves.
    """

    def __init__(self, database: Path, server: AppServer | None, **variables: str) -> None:
        self.database = database
        self.server = server
        self._variables = variables

    def run(self, *args: str, stdin: bytes | str | None = None, **variables: str) -> Result:
        return run(*args, stdin=stdin, **self._variables, **variables)

    def done(self, *args: str, **variables: str) -> str:
        """Run a command that succeeds and says nothing on standard error. Returns: its output."""
        result = self.run(*args, **variables)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def records(self, *args: str, **variables: str) -> list[dict[str, Any]]:
        """The lines of JSON that a command prints."""
        lines = self.done(*args, **variables).splitlines()
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


@contextmanager
def place(kind: str, directory: Path) -> Iterator[Place]:
    """A new database: ``direct``, or ``over HTTP``, where an administrator's token is its first."""
    database = directory / "x.db"
    if kind == "direct":
        yield Place(database, None, TENANTBASE_DATABASE=str(database))
        return
    token = run("token", "create", "root", "--scope", "admin", "--database", str(database))
    assert token.exit_code == 0, token.output
    with AppServer(database, "--memcached", "off", "--log-level", "debug") as server:
        yield Place(
            database,
            server,
            TENANTBASE_URL=server.base_url,
            TENANTBASE_TOKEN=token.stdout.strip(),
        )
