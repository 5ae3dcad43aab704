"""Opening a database: each thing that is wrong with its server is said in one line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.postgres import joining, survey
from tenantbase.interfaces.postgres.address import DatabaseAddress, Host
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.store import PostgresStore
from tests.interfaces.postgres.cluster import put, value_of
from tests.interfaces.shared import SMALL
from tests.postgres import PostgresProcess
from tests.servers import free_port

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("text", "hosts", "database"),
    [
        ("postgresql://u@a/d", (Host("a", 5432),), "d"),
        ("postgres://u:p@a:1,b:2/d?sslmode=require", (Host("a", 1), Host("b", 2)), "d"),
        ("postgresql://u:p%40x@[::1]:7,b/d", (Host("::1", 7), Host("b", 5432)), "d"),
    ],
)
def test_addresses(text: str, hosts: tuple[Host, ...], database: str) -> None:
    found = DatabaseAddress.parse(text)
    assert (found.hosts, found.database) == (hosts, database)
    assert "p@" not in repr(found) and "p@" not in str(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://u@a/d", "expected postgresql://"),
        ("postgresql://u@a", "must name the database"),
        ("postgresql://u@a/", "must name the database"),
        ("postgresql://u@a:x/d", "a port is a number"),
        ("postgresql://u@a:70000/d", "a port is a number"),
        ("postgresql://u@/d", "expected HOST"),
        ("postgresql://u@a,/d", "expected HOST"),
        ("postgresql://u:secret#@a/d", "must be percent-encoded"),
        ("postgresql://u:secret/@a/d", "must be percent-encoded"),
    ],
)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        DatabaseAddress.parse(text)
    assert "secret" not in str(caught.value)


async def reason(url: str, *, replicated: bool = False) -> str:
    """Why a database cannot be opened."""
    with pytest.raises(CannotOpen) as caught:
        await (await open_store(url, replicated=replicated)).close()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("cannot open database '")
    return text


async def open_store(url: str, *, replicated: bool = False) -> PostgresStore:
    return await PostgresStore.open(
        DatabaseAddress.parse(url),
        confirm=Confirm.COMMIT,
        replicated=replicated,
        timeout=30.0,
        write_timeout=30.0,
        read_timeout=30.0,
        sizes=SMALL,
    )


async def test_a_server_that_is_away_is_named(postgres: PostgresProcess) -> None:
    port = free_port()
    text = await reason(f"postgresql://tenantbase@127.0.0.1:{port}/tenantbase")
    assert f"127.0.0.1:{port}: " in text
    assert "Connect call failed" in text or "refused" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("_none", "it has no such database"),
        ("?sslmode=require", "SSL"),
        ("?sslmode=nonsense", "sslmode"),
    ],
)
async def test_what_a_server_refuses(database: str, options: str, message: str) -> None:
    assert message in await reason(database + options)


def require_password(server: PostgresProcess) -> None:
    """Let the role ``keyed`` in only with its password."""
    if server.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'keyed'") == "0":
        server.sql("CREATE ROLE keyed LOGIN PASSWORD 'right'; GRANT tenantbase TO keyed")
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"host all keyed 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.sql("SELECT pg_reload_conf()")


async def test_a_password_comes_from_a_file_or_the_environment(
    postgres: PostgresProcess, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_password(postgres)
    url = database.replace("tenantbase@", "keyed@")
    assert "it refuses the user or the password" in await reason(url)
    monkeypatch.setenv("PGPASSWORD", "right")
    await (await open_store(url)).close()
    monkeypatch.delenv("PGPASSWORD")
    passwords = tmp_path / "passwords"
    passwords.write_text("127.0.0.1:*:*:keyed:right\n")
    passwords.chmod(0o600)
    await (await open_store(f"{url}?passfile={passwords}")).close()


async def test_an_old_server_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_FLOORS", {15: 99, 16: 99, 17: 99, 18: 99})
    assert "is too old; 15.99 or newer is needed" in await reason(database)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "ALTER DATABASE {0} SET synchronous_commit = off",
            "synchronous_commit is 'off'; it must be 'on'",
        ),
        (
            "CREATE SCHEMA tenantbase AUTHORIZATION tenantbase",
            "schema 'tenantbase' was not made by tenantbase",
        ),
        (
            "REVOKE ALL ON DATABASE {0} FROM public; ALTER DATABASE {0} OWNER TO postgres;"
            " GRANT CONNECT ON DATABASE {0} TO tenantbase",
            "the user lacks rights (permission denied for database {0})",
        ),
    ],
)
async def test_what_is_wrong_with_a_database(
    postgres: PostgresProcess, database: str, statement: str, message: str
) -> None:
    name = database.rpartition("/")[2]
    postgres.sql(statement.format(name), database=name)
    assert message.format(name) in await reason(database)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_keys_need_an_encoding_that_has_all_characters(
    postgres: PostgresProcess, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgres.sql(
        f"CREATE DATABASE {name} OWNER tenantbase ENCODING '{encoding}' TEMPLATE template0"
    )
    text = await reason(postgres.url(name))
    assert f"the encoding of the database is {encoding}; it must be UTF8" in text


async def test_a_newer_schema_is_left_alone(postgres: PostgresProcess, database: str) -> None:
    await (await open_store(database)).close()
    postgres.sql("UPDATE tenantbase.state SET schema = 99", database=database.rpartition("/")[2])
    assert "its tables have version 99" in await reason(database)


async def test_a_standby_is_needed_unless_told_otherwise(database: str) -> None:
    assert "it has no synchronous standby" in await reason(database, replicated=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [("*", "it has no synchronous standby"), ("a, b", "must name exactly one standby")],
)
async def test_only_one_standby_may_be_the_candidate(names: str, message: str) -> None:
    with PostgresProcess(synchronous_standby_names=names) as server:
        assert message in await reason(server.url(), replicated=True)


async def test_fsync_is_needed() -> None:
    with PostgresProcess(fsync="off") as server:
        assert "fsync and full_page_writes must be on" in await reason(server.url())


async def test_a_standby_alone_is_no_primary() -> None:
    with PostgresProcess() as primary:
        standby = primary.standby()
        assert "all servers that answer are standbys" in await reason(standby.url())
        # It is found wherever it is in the list, and an absent server does not matter.
        hosts = f"127.0.0.1:{free_port()},{standby.host},{primary.host}"
        store = await open_store(standby.url().replace(standby.host, hosts), replicated=True)
        await put(store, "default/k")
        assert await value_of(store) == b"1"
        await store.close()


async def test_two_servers_promoted_from_one_history_give_different_positions() -> None:
    """An operator may have given up the first server."""
    with PostgresProcess() as primary:
        await (await open_store(primary.url())).close()
        standbys = [primary.standby(name, synchronous=False) for name in ("one", "two")]
        versions = []
        for server in standbys:
            server.promote()
            store = await open_store(server.url())
            versions.append((await put(store, "default/k")).version)
            await store.close()
        # Equal with a likelihood of 1 in 65,536.
        assert abs(versions[0] - versions[1]) >= 1 << 20


async def test_servers_may_be_promoted_before_the_first_write() -> None:
    """The first two terms then begin at the same position, and later ones above it."""
    with PostgresProcess() as primary:
        await (await open_store(primary.url())).close()
        server, begun = primary, [0, 0]
        for _ in range(2):
            server = server.standby()
            server.promote()
            store = await open_store(server.url())
            index = await store.ask(0)
            assert [term.inherited for term in index.terms] == begun
            assert index.position == joining.begins_after(index.terms[0])
            begun.insert(0, index.position)
            await store.close()
        store = await open_store(server.url())
        assert (await put(store, "default/k")).version == begun[0] + 1
        await store.close()


async def test_two_nodes_make_the_tables_of_a_new_database_together(database: str) -> None:
    stores = await asyncio.gather(*(open_store(database) for _ in range(4)))
    assert len({store.secret for store in stores}) == 1
    assert len({(await store.ask(0)).terms[0] for store in stores}) == 1
    for store in stores:
        await store.close()
