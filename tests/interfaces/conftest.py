"""A PostgreSQL for the tests of stores, and databases on it."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from itertools import count

import pytest

from tests.postgres import PostgresProcess

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres() -> PostgresProcess:
    """A server for all tests of a process that do not break it."""
    server = PostgresProcess().__enter__()
    # Not when the fixture ends: that would be in the last test of the process, whichever that is.
    atexit.register(server.__exit__)
    return server


@pytest.fixture(scope="session")
def used_database(postgres: PostgresProcess) -> str:
    """The URL of a database that other tests have used."""
    postgres.sql("CREATE DATABASE used OWNER tenantbase")
    return postgres.url("used")


@pytest.fixture
def database(postgres: PostgresProcess) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{next(_NUMBERS)}"
    postgres.sql(f"CREATE DATABASE {name} OWNER tenantbase")
    yield postgres.url(name)
    postgres.sql(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")
