"""TLS to the server, with libpq's options in the URL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.store import PostgresStore
from tests.certificates import Authority
from tests.interfaces.postgres.cluster import KEY, put, value_of
from tests.interfaces.shared import SMALL
from tests.postgres import PostgresProcess, owner

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[PostgresProcess]:
    """A server with a certificate for 127.0.0.1, which lets the role in over TLS only."""
    with PostgresProcess() as server:
        pair = authority.issue("db.example")
        for file, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
            copied = shutil.copy(file, server.data / name)
            os.chmod(copied, 0o600)
            if (user := owner()) is not None:
                os.chown(copied, user.pw_uid, user.pw_gid)
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"hostnossl all tenantbase all reject\n{rules.read_text()}")
        server.configure(ssl="on")
        yield server


async def opened(url: str) -> PostgresStore:
    return await PostgresStore.open(
        DatabaseAddress.parse(url),
        confirm=Confirm.NONE,
        replicated=False,
        timeout=30.0,
        write_timeout=30.0,
        read_timeout=30.0,
        sizes=SMALL,
    )


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_every_connection_is_encrypted(
    server: PostgresProcess, authority: Authority, mode: str
) -> None:
    store = await opened(f"{server.url()}?sslmode={mode}&sslrootcert={authority.certificate}")
    await put(store, KEY)
    assert await value_of(store) == b"1"
    plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
    where = "WHERE usename = 'tenantbase'"
    assert server.sql(f"{plain} {where} AND NOT ssl") == "0"
    assert int(server.sql(f"{plain} {where} AND ssl")) >= 4
    await store.close()


async def test_a_server_of_another_authority_is_refused(
    server: PostgresProcess, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "another authority")
    with pytest.raises(CannotOpen, match=r"certificate verify failed") as caught:
        await opened(f"{server.url()}?sslmode=verify-full&sslrootcert={other.certificate}")
    assert "\n" not in str(caught.value)


async def test_the_name_must_be_that_of_the_certificate(
    server: PostgresProcess, authority: Authority
) -> None:
    trusted = f"sslrootcert={authority.certificate}"
    url = server.url().replace("127.0.0.1", "localhost")
    with pytest.raises(CannotOpen, match="not valid for 'localhost'"):
        await opened(f"{url}?sslmode=verify-full&{trusted}")
    await (await opened(f"{url}?sslmode=verify-ca&{trusted}")).close()


async def test_an_absent_file_of_authorities_is_told(server: PostgresProcess) -> None:
    with pytest.raises(CannotOpen, match="a file that the URL names does not exist"):
        await opened(f"{server.url()}?sslmode=verify-full&sslrootcert=/absent.pem")


async def test_a_server_may_insist_on_it(server: PostgresProcess) -> None:
    with pytest.raises(CannotOpen, match="pg_hba.conf rejects connection"):
        await opened(f"{server.url()}?sslmode=disable")
