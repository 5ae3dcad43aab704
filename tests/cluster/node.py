"""A node of a cluster: `tenantbase serve` on a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.app_server import AppServer


class Node(AppServer):
    """A server whose database is elsewhere.

    Args:
        url: of the database.
        options: further options of `tenantbase serve`.
        port: where it listens; 0: a free one.
        program: the Python program to run; empty: the service itself.
    """

    def __init__(self, url: str, *options: str, port: int = 0, program: Sequence[str] = ()) -> None:
        super().__init__(Path(), *options)
        self.program = program or self.program
        self._url = url
        self._free_port = port

    @property
    def store(self) -> str:
        return self._url
