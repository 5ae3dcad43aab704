"""A node of a cluster: `tenantbase serve` on a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from tests.app_server import AppServer


class Node(AppServer):
    """A server whose database is elsewhere.

    Args:
        url: of the database.
        options: further options of `tenantbase serve`.
    """

    def __init__(self, url: str, *options: str) -> None:
        super().__init__(Path(), *options)
        self._url = url

    @property
    def store(self) -> str:
        return self._url
