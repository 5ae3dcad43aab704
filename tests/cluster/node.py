"""A node of a cluster: `tenantbase serve` on a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.app_server import AppServer


class Node(AppServer):
    """A server whose database is elsewhere.

    Args:
        url: of the database.
        options: further options of `tenantbase serve`.
        program: the Python program to run; empty: the service itself.
        environment: variables in addition to this process's.
    """

    def __init__(
        self,
        url: str,
        *options: str,
        program: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(Path(), *options, environment=environment)
        self.program = program or self.program
        self._url = url

    @property
    def store(self) -> str:
        return self._url
