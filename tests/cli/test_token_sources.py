"""Where the command line takes a token from, and where the token shows: nowhere but in the request."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.command import TENANTBASE, command, refused

UNKNOWN = "tb_" + "u" * 43


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """A server that is closed; the secret of its administrator is beside its database."""
    directory = tmp_path_factory.mktemp("server")
    database = directory / "x.db"
    made = command("token", "create", "root", "--scope", "admin", "--database", str(database))
    (directory / "token").write_bytes(made.stdout)
    with AppServer(database, "--log-level", "debug") as server:
        yield server


@pytest.fixture
def file(server: AppServer) -> Path:
    return server.database.with_name("token")


@pytest.fixture
def token(file: Path) -> str:
    return file.read_text().strip()


COMMANDS = [
    ("set", "k", "1"),
    ("get", "k"),
    ("delete", "x"),
    ("list",),
    ("tenant", "list"),
    ("token", "list"),
]


@pytest.mark.parametrize("source", ["option", "variable", "file", "file variable", "pipe"])
def test_every_source_works_for_every_command(
    server: AppServer, file: Path, token: str, source: str
) -> None:
    url = ("--url", server.base_url)
    for args in COMMANDS if source == "variable" else COMMANDS[:1]:
        if source == "option":
            done = command(*args, *url, "--token", token)
        elif source == "variable":
            done = command(*args, *url, env=clean_environment(TENANTBASE_TOKEN=token))
        elif source == "file":
            done = command(*args, *url, "--token-file", str(file))
        elif source == "file variable":
            done = command(*args, *url, env=clean_environment(TENANTBASE_TOKEN_FILE=str(file)))
        else:
            done = command(*args, *url, "--token-file", "/dev/stdin", stdin=f"{token}\n\n".encode())
        assert (done.returncode, done.stderr) == (0, b""), args
        assert token.encode() not in done.stdout
    assert token not in server.stderr


@pytest.mark.parametrize("args", COMMANDS)
def test_server_that_requires_a_token_says_so(server: AppServer, args: tuple[str, ...]) -> None:
    url = ("--url", server.base_url)
    assert refused(command(*args, *url), "the server requires a token", "--token-file")
    done = command(*args, *url, env=clean_environment(TENANTBASE_TOKEN=UNKNOWN))
    assert refused(done, "the server does not accept the token: it is unknown, revoked or expired")
    assert UNKNOWN.encode() not in done.stderr
    assert UNKNOWN not in server.stderr


def test_scope_that_does_not_suffice_is_one_line(server: AppServer, file: Path) -> None:
    url = ("--url", server.base_url)
    made = command("token", "create", "--scope", "read", *url, "--token-file", str(file))
    reading = clean_environment(TENANTBASE_TOKEN=made.stdout.decode())
    assert command("list", *url, env=reading).returncode == 0
    for args in (("set", "k", "2"), ("tenant", "list"), ("token", "create", "--scope", "admin")):
        assert refused(command(*args, *url, env=reading), "token")
    assert command("get", "k", *url, "--tenant", "other", env=reading).returncode == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"two tokens\n", b"\xff\xfe", b"tb_x\ntb_y\n"])
def test_file_without_a_token_is_named_and_not_shown(
    server: AppServer, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    done = command("get", "k", "--url", server.base_url, "--token-file", str(path))
    assert refused(done, f"--token-file: {path} does not hold one token", status=2)
    assert b"tb_" not in done.stderr and b"two tokens" not in done.stderr


def test_file_that_cannot_be_read_is_named(server: AppServer, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        done = command("get", "k", "--url", server.base_url, "--token-file", str(path))
        assert refused(done, f"--token-file: {path} cannot be read: {why}", status=2)


def test_database_itself_needs_no_token(server: AppServer) -> None:
    """Whoever may write the file may do everything; a token in the environment changes nothing."""
    where = ("--database", str(server.database))
    environment = clean_environment(TENANTBASE_TOKEN=UNKNOWN, TENANTBASE_URL=server.base_url)
    assert command("set", "direct", "1", *where, env=environment).returncode == 0
    assert command("token", "list", *where, env=environment).returncode == 0
    done = command("get", "direct", *where, "--token", UNKNOWN)
    assert refused(done, "--token: needs --url as well", status=2)


def test_process_list_does_not_show_a_token_of_the_environment(token: str, file: Path) -> None:
    """Nor one from a file, while the command waits for a server that does not answer."""
    for options, variables in (((), {"TENANTBASE_TOKEN": token}), (("--token-file", file), {})):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(READY_SECONDS)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            process = subprocess.Popen(
                [*TENANTBASE, "list", "--url", url, *options],
                env=clean_environment(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            with process, listener.accept()[0] as connection:
                connection.settimeout(READY_SECONDS)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                everybody = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True)
                process.kill()
            assert f"\r\nAuthorization: Bearer {token}\r\n".encode() in head
            assert b"list" in line and token.encode() not in line
            assert token.encode() not in everybody.stdout
            assert token.encode() not in head.split(b"\r\n")[0]


def test_curl_takes_the_token_that_is_printed(server: AppServer) -> None:
    where = ("--database", str(server.database))
    token = command("token", "create", "curl", "--scope", "write", *where).stdout.decode().strip()
    script = (
        "curl -s --retry 10 --retry-delay 1 --retry-all-errors --fail"
        ' -H "Authorization: Bearer $TOKEN" "$URL/set-value" -d \'{"key":"c","value":1}\''
    )
    # Retried: for a moment, the server does not know a token that was made beside it.
    done = subprocess.run(
        ["sh", "-c", script],
        env=clean_environment(TOKEN=token, URL=server.base_url),
        capture_output=True,
        timeout=40,
    )
    assert done.stdout.startswith(b'{"key":"c",'), done
    assert token not in server.stderr
