"""The console of one node, while everything else happens at another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.app_server import AppServer
from tests.cluster.node import Node
from tests.console.test_keys import (  # noqa: F401  run here with the service below
    test_changes_elsewhere_show_at_once,
    test_delete_and_undo,
    test_folders_are_deleted_after_their_count_is_typed,
    test_two_people_change_one_value,
)
from tests.postgres import PostgresProcess
from tests.servers import MemcachedProcess
from tests.wire import Answer

_OPTIONS = ("--store-unreplicated", "--store-timeout", "30", "--read-timeout", "30")


class TwoNodes(Node):
    """A node whose console is open, and another one that the tests talk to."""

    def __init__(self, url: str, other: AppServer, *options: str) -> None:
        super().__init__(url, *options)
        self._other = other

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self._other.ask(method, path, body, headers)


@pytest.fixture(scope="module")
def service() -> Iterator[AppServer]:
    with PostgresProcess() as postgres, MemcachedProcess() as memcached:
        options = (*_OPTIONS, "--memcached", memcached.address)
        with Node(postgres.url(), *options) as other:
            with TwoNodes(postgres.url(), other, *options) as node:
                yield node
