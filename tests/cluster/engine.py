"""PostgreSQL for a cluster: a primary and its synchronous standby, alone or under Patroni."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.cluster.patroni import DEPLOYED, SQL, Etcd, Patroni, primary_of
from tests.postgres import PostgresProcess, make_directory

_NAMES: Final = ("one", "two", "three")


class Member(NamedTuple):
    """A server of the cluster, for people.

    Attributes:
        address: where clients connect.
        pid: its main process, a child of this one.
    """

    name: str
    address: str
    pid: int


def settings() -> dict[str, str]:
    """The settings of PostgreSQL that a production cluster has."""
    config: dict[str, Any] = yaml.safe_load(DEPLOYED.read_text())
    return dict(config["bootstrap"]["dcs"]["postgresql"]["parameters"])


def role_settings() -> str:
    """SQL that gives the role of tenantbase the settings that it has in production."""
    return "\n".join(line for line in SQL.read_text().splitlines() if line.startswith("ALTER ROLE"))


def plain(base: Path, stack: ExitStack) -> Iterator[Member]:
    """A primary and its synchronous standby; nothing promotes it. Yields: both, once ready."""

    class Server(PostgresProcess):
        parent = base

    primary = stack.enter_context(Server(**settings()))
    primary.sql(role_settings())
    standby = primary.standby()
    yield Member("primary", primary.host, primary.pid)
    yield Member("standby", standby.host, standby.pid)


def patroni(base: Path, stack: ExitStack) -> Iterator[Member]:
    """Three members under Patroni, with one etcd. Yields: the members, once all are ready."""
    etcd = stack.enter_context(Etcd(make_directory(base)))
    members = []
    for name in _NAMES:
        member = Patroni(name, make_directory(base), etcd.port)
        members.append(stack.enter_context(member))
    primary_of(members)
    for member in members:
        yield Member(f"Patroni {member.name}", member.host, member.pid)
