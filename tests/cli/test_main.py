"""The command line, on the database itself and with `--url`."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from tenantbase import __version__
from tenantbase.main import main
from tests.app_server import AppServer, clean_environment
from tests.servers import free_port, stopped_writer

pytestmark = pytest.mark.integration  # some commands start a server


Tenantbase = Callable[..., Result]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with AppServer(tmp_path_factory.mktemp("server") / "x.db") as server:
        yield server


def run(*args: str, stdin: bytes | str | None = None, **variables: str) -> Result:
    cleared = {name: None for name in os.environ if "TENANTBASE" in name}
    return CliRunner().invoke(main, args, stdin, {**cleared, **variables})


@pytest.fixture(params=["direct", "over HTTP"])
def tenantbase(
    request: pytest.FixtureRequest, tmp_path: Path, server: AppServer
) -> Iterator[Tenantbase]:
    """Runs a command on an empty database, or on an empty server."""
    if request.param == "direct":
        where = {"TENANTBASE_DATABASE": str(tmp_path / "x.db")}
        assert run("set", "k", "0", **where).exit_code == 0
        assert run("delete", "k", **where).exit_code == 0
    else:
        where = {"TENANTBASE_URL": server.base_url}
        assert server.ask("POST", "/delete-values", b'{"prefix":""}').status == 200
    yield lambda *args, **more: run(*args, **where, **more)


def failed(result: Result, message: str, status: int = 1) -> bool:
    """Whether a command failed with exactly this line."""
    assert result.stderr == f"Error: {message}\n"
    assert result.stdout == ""
    return result.exit_code == status


# A VALUE on the command line, and the text that is stored for it.
VALUES = [
    ("1.0", "1.0"),
    ("-0", "-0"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ('{"b": 1,  "a": [null, true]}', '{"b": 1,  "a": [null, true]}'),
    (' "x" ', '"x"'),
    ('"\\u00e9"', '"\\u00e9"'),
    ("hello", '"hello"'),
    ("two words", '"two words"'),
    ("\u00e9\U0001f600", '"\u00e9\U0001f600"'),
    ("NaN", '"NaN"'),
    ("01", '"01"'),
    ("{", '"{"'),
    ("", '""'),
]


@pytest.mark.parametrize(("given", "stored"), VALUES)
def test_a_value_is_json_or_else_a_string(tenantbase: Tenantbase, given: str, stored: str) -> None:
    assert tenantbase("set", "k", "--", given).exit_code == 0
    assert tenantbase("get", "k").stdout == stored + "\n"


def test_text_is_always_a_string(tenantbase: Tenantbase) -> None:
    assert tenantbase("set", "k", "--text", "1").exit_code == 0
    assert tenantbase("get", "k").stdout == '"1"\n'
    assert failed(
        tenantbase("set", "k", "--text", "-", stdin=b"\xff"), "the value is not UTF-8 text"
    )


def test_a_dash_is_standard_input(tenantbase: Tenantbase) -> None:
    assert tenantbase("set", "k", "-", stdin=b'{"a": 1}\n').exit_code == 0
    assert tenantbase("get", "k").stdout == '{"a": 1}\n'
    assert tenantbase("set", "k", "-", stdin=b"line\n").exit_code == 0
    assert tenantbase("get", "k").stdout == '"line\\n"\n'


def test_bytes_stay_as_they_are(tenantbase: Tenantbase) -> None:
    data = bytes(range(256))
    assert tenantbase("set", "k", "-", stdin=data).exit_code == 0
    assert tenantbase("get", "k").stdout_bytes == data
    (line,) = tenantbase("list").stdout.splitlines()
    assert msgspec.json.decode(line)["encoding"] == "base64"


def test_set_prints_the_result(tenantbase: Tenantbase) -> None:
    first = msgspec.json.decode(tenantbase("set", "k", "1").stdout)
    second = msgspec.json.decode(tenantbase("set", "k", "2", "--ttl", "1e3").stdout)
    assert first.keys() == second.keys() == {"key", "id", "version", "created", "expires_at"}
    assert first["created"] and not second["created"]
    assert second["version"] > first["version"]
    assert first["expires_at"] is None and second["expires_at"] > 1e9


def test_a_value_expires(tenantbase: Tenantbase) -> None:
    assert tenantbase("set", "k", "1", "--ttl", "0.000001").exit_code == 0
    assert failed(tenantbase("get", "k"), "there is no key 'k'")


def test_conditions(tenantbase: Tenantbase) -> None:
    version = msgspec.json.decode(tenantbase("set", "k", "1", "--if-absent").stdout)["version"]
    refusal = f"the condition on key 'k' does not hold: its version is {version}"
    assert failed(tenantbase("set", "k", "2", "--if-absent"), refusal)
    assert failed(tenantbase("set", "k", "2", "--if-version", str(version + 1)), refusal)
    assert failed(tenantbase("delete", "k", "--if-version", str(version + 1)), refusal)
    assert tenantbase("get", "k").stdout == "1\n"
    assert tenantbase("set", "k", "2", "--if-version", str(version)).exit_code == 0
    version = msgspec.json.decode(tenantbase("list").stdout)["version"]
    assert tenantbase("delete", "k", "--if-version", str(version)).exit_code == 0
    assert tenantbase("get", "k").exit_code == 1


def test_deleting_is_silent_and_repeatable(tenantbase: Tenantbase) -> None:
    tenantbase("set", "k", "1")
    for _ in range(2):
        result = tenantbase("delete", "k")
        assert (result.exit_code, result.output) == (0, "")
    assert failed(tenantbase("get", "k"), "there is no key 'k'")


def test_list(tenantbase: Tenantbase) -> None:
    for key in ("b/\u00e9", "a", "b/2", "b/1", "b0"):
        tenantbase("set", key, f'["{key}",  1.0]')

    def listed(*options: str) -> list[str]:
        lines = tenantbase("list", *options).stdout.splitlines()
        entries = [msgspec.json.decode(line) for line in lines]
        for line, entry in zip(lines, entries, strict=True):
            assert entry.keys() == {"key", "value", "id", "version", "expires_at"}
            assert f'"value":["{entry["key"]}",  1.0]' in line
        return [entry["key"] for entry in entries]

    assert listed() == ["a", "b/1", "b/2", "b/\u00e9", "b0"]
    assert listed("--prefix", "b/") == ["b/1", "b/2", "b/\u00e9"]
    assert listed("--prefix", "b/", "--limit", "2") == ["b/1", "b/2"]
    assert listed("--prefix", "c") == []
    assert listed("--start", "b/2", "--end", "b0") == ["b/2", "b/\u00e9"]
    assert listed("--reverse", "--limit", "2") == ["b0", "b/\u00e9"]
    assert tenantbase("count").stdout.startswith("5 entries, ")
    assert tenantbase("count", "--prefix", "a").stdout == "1 entries, 12 bytes\n"


def test_touch(tenantbase: Tenantbase) -> None:
    tenantbase("set", "k", "[1,  2]", "--ttl", "1000")
    touched = msgspec.json.decode(tenantbase("touch", "k", "--never").stdout)
    assert (touched["key"], touched["expires_at"], touched["created"]) == ("k", None, False)
    assert msgspec.json.decode(tenantbase("touch", "k", "--ttl", "9").stdout)["expires_at"] > 1e9
    assert tenantbase("get", "k", "--raw").stdout == "[1,  2]"
    assert failed(tenantbase("touch", "x", "--never"), "there is no such key, or it has expired")
    for options in ([], ["--never", "--ttl", "1"]):
        assert tenantbase("touch", "k", *options).exit_code == 2
    stale = str(touched["version"])
    assert tenantbase("touch", "k", "--never", "--if-version", stale).exit_code == 1


def test_a_list_has_one_line_for_each_entry(tenantbase: Tenantbase) -> None:
    tenantbase("set", "k\nl", '{\n"a":\r\n"b\\n"\n}')
    (line,) = tenantbase("list").stdout.splitlines()
    entry = msgspec.json.decode(line)
    assert (entry["key"], entry["value"]) == ("k\nl", {"a": "b\n"})


@pytest.mark.parametrize(
    "key", [".", "..", "a/../b", "a b", "?x=1&y#z", "%2f%", "\u00e9", "+", "'"]
)
def test_any_key(tenantbase: Tenantbase, key: str) -> None:
    assert tenantbase("set", key, "1").exit_code == 0
    assert tenantbase("get", key).stdout == "1\n"
    assert msgspec.json.decode(tenantbase("list").stdout)["key"] == key
    assert tenantbase("delete", key).exit_code == 0
    assert tenantbase("get", key).exit_code == 1


@pytest.mark.parametrize("command", ["get", "delete", "set"])
def test_an_illegal_key_is_refused(tenantbase: Tenantbase, command: str) -> None:
    more = ["1"] if command == "set" else []
    assert failed(tenantbase(command, "", *more), "a key has at least one character")
    long = tenantbase(command, "k" * 1025, *more)
    assert failed(long, "a key has at most 1,024 bytes of UTF-8")
    assert tenantbase(command, os.fsdecode(b"\xff"), *more).exit_code == 1


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "inf"])
def test_a_lifetime_is_above_zero(tenantbase: Tenantbase, ttl: str) -> None:
    result = tenantbase("set", "k", "1", "--ttl", ttl)
    assert result.exit_code == 1 and result.stderr.startswith("Error: ttl is a number of seconds")


def test_a_large_value(tenantbase: Tenantbase) -> None:
    value = "x" * 1_000_000
    assert tenantbase("set", "k", "-", stdin=value).exit_code == 0
    assert tenantbase("get", "k").stdout == f'"{value}"\n'
    too_large = tenantbase("set", "k", "-", stdin="x" * (1 << 20))
    assert failed(too_large, "a value has at most 1,048,576 bytes")


def test_missing_arguments_are_prompted_for(tenantbase: Tenantbase) -> None:
    asked = tenantbase("set", stdin="k\n[1]\n")
    # click's runner echoes its input as if it had been typed.
    assert asked.exit_code == 0 and asked.stderr == "Key: k\nValue: [1]\n"
    assert tenantbase("set", "l", stdin="two\n").stderr == "Value: two\n"
    assert tenantbase("get", stdin="k\n").stdout == "[1]\n"
    assert tenantbase("get", stdin="l\n").stdout == '"two"\n'
    assert tenantbase("delete", stdin="k\n").exit_code == 0
    assert tenantbase("get", "k").exit_code == 1


@pytest.mark.parametrize(
    ("args", "stdin", "question"),
    [
        (["set"], "", "Key"),
        (["set"], "k\n", "Value"),
        (["set", "k"], "", "Value"),
        (["get"], "\n\n", "Key"),
        (["delete"], "", "Key"),
    ],
)
def test_an_unanswered_prompt_fails(
    tmp_path: Path, args: list[str], stdin: str, question: str
) -> None:
    result = run(*args, stdin=stdin, TENANTBASE_DATABASE=str(tmp_path / "x.db"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {question.upper()} is missing"
    assert list(tmp_path.iterdir()) == []


def test_asks_at_a_terminal(tmp_path: Path) -> None:
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-m", "tenantbase", "set", "--database", str(tmp_path / "x.db")]
    process = subprocess.Popen(
        command, stdin=other_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(other_end)
    os.write(terminal, b"k\nvalue\n")
    stdout, stderr = process.communicate(timeout=20)
    os.close(terminal)
    assert process.returncode == 0 and stdout.startswith('{"key":"k"')
    assert stderr == "Key: Value: "


@pytest.mark.parametrize("args", [["get", "k"], ["delete", "k"], ["list"]])
def test_only_set_creates_a_database(tmp_path: Path, args: list[str]) -> None:
    database = tmp_path / "x.db"
    assert failed(run(*args, "--database", str(database)), f"there is no database {database}")
    assert list(tmp_path.iterdir()) == []
    assert run("set", "k", "1", "--database", str(database)).exit_code == 0
    assert list(tmp_path.iterdir()) == [database]


@pytest.mark.parametrize(
    "args", [["set", "k", "2"], ["get", "k"], ["get", "x"], ["delete", "k"], ["list"]]
)
def test_only_the_database_file_remains(tmp_path: Path, args: list[str]) -> None:
    database = tmp_path / "x.db"
    assert run("set", "k", "1", "--database", str(database)).exit_code == 0
    run(*args, "--database", str(database))
    assert list(tmp_path.iterdir()) == [database]


def test_a_link_to_the_database(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "x.db", tmp_path / "link.db"
    real.parent.mkdir()
    link.symlink_to(real)
    with AppServer(real) as server:
        assert run("set", "k", "1", "--database", str(link)).exit_code == 0
        assert server.ask("GET", "/get-value?key=k").json["value"] == 1
        assert server.ask("GET", "/get-value?key=k").headers["X-Cache"] == "HIT"
        assert run("set", "k", "2", "--database", str(link)).exit_code == 0
        assert server.ask("GET", "/get-value?key=k").json["value"] == 2


def test_a_running_server_never_shows_an_old_value(server: AppServer) -> None:
    where = {"TENANTBASE_DATABASE": str(server.database)}
    for value in range(20):
        assert run("set", "shared", str(value), **where).exit_code == 0
        answers = [server.ask("GET", "/get-value?key=shared") for _ in range(2)]
        assert [answer.json["value"] for answer in answers] == [value, value]
        assert answers[1].headers["X-Cache"] == "HIT"
    assert run("delete", "shared", **where).exit_code == 0
    assert server.ask("GET", "/get-value?key=shared").status == 404
    server.ask("POST", "/set-value", b'{"key": "shared", "value": "back"}')
    assert run("get", "shared", **where).stdout == '"back"\n'


@pytest.mark.parametrize("args", [["set", "k", "2"], ["get", "k"]])
def test_waiting_for_a_stopped_writer_times_out(tmp_path: Path, args: list[str]) -> None:
    database = tmp_path / "x.db"
    assert run("set", "k", "1", "--database", str(database)).exit_code == 0
    with stopped_writer(database) as writer:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tenantbase", *args],
            capture_output=True,
            text=True,
            timeout=20,
            env=clean_environment(
                TENANTBASE_DATABASE=str(database), TENANTBASE_WRITE_TIMEOUT="0.3"
            ),
        )
        message = f"cannot lock {database}-lock in 0.3 s: another process holds it"
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Error: {message}\n"
        writer.send_signal(signal.SIGCONT)
        assert writer.wait(20) == 0
    assert run("get", "k", "--database", str(database)).stdout == "1\n"
    assert list(tmp_path.iterdir()) == [database]


def test_an_unreachable_server_is_an_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run("get", "k", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {url} does not answer: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_foreign_server(server: AppServer) -> None:
    result = run("get", "k", "--url", f"{server.base_url}/elsewhere")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "variables", "lines"),
    [
        (["serve", "--port", "x"], {}, ["Error: --port: 'x': expected a number from 0 to 65535"]),
        (
            ["serve"],
            {"TENANTBASE_WORKERS": "0"},
            ["Error: TENANTBASE_WORKERS: '0': expected auto or a number from 1 to 1024"],
        ),
        (
            ["serve", "--tls-key", "key.pem", "--log-level", "x"],
            {},
            [
                "Error: --log-level: 'x': expected one of debug, info, warning, error, critical",
                "Error: --tls-key: needs --tls-cert as well",
            ],
        ),
    ],
)
def test_mistakes_are_named(args: list[str], variables: dict[str, str], lines: list[str]) -> None:
    result = run(*args, **variables)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sorted(result.stderr.splitlines()) == sorted(lines)


def test_an_unknown_variable_is_reported_once_and_ignored(tmp_path: Path) -> None:
    result = run("set", "k", "1", "--database", str(tmp_path / "x.db"), TENANTBASE_DATABSE="x")
    assert result.exit_code == 0 and result.stdout.startswith('{"key":"k"')
    assert result.stderr == (
        "Warning: TENANTBASE_DATABSE is ignored: there is no such variable;"
        " did you mean TENANTBASE_DATABASE?\n"
    )


@pytest.mark.parametrize("args", [["serve", "--prot", "1"], ["get", "a", "b"], ["frob"]])
def test_unknown_commands_and_options_are_usage_errors(args: list[str]) -> None:
    assert run(*args).exit_code == 2


@pytest.mark.parametrize(
    ("module", "args", "text"),
    [
        ("tenantbase", ["--version"], f"tenantbase {__version__}\n"),
        ("tenantbase", ["--help"], "Usage: python -m tenantbase [OPTIONS] COMMAND"),
        ("tenantbase.web", ["--help"], "Usage: python -m tenantbase.web [OPTIONS]"),
    ],
)
def test_modules_are_commands(module: str, args: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *args],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env=clean_environment(),
    )
    assert done.stdout.startswith(text) and done.stderr == ""


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (["--help"], b"Usage: "),
        (["set", "k", "2"], b'{"key":"k",'),
        (["get", "k"], b"1\n"),
        (["delete", "k"], b""),
        (["list"], b'{"key":"k","value":1,'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_on_a_database_do_not_import_aiohttp(
    tmp_path: Path, args: list[str], output: bytes
) -> None:
    database = str(tmp_path / "x.db")
    run("set", "k", "1", "--database", database)
    code = (
        "import sys; from tenantbase.main import main; "
        "main(sys.argv[1:], standalone_mode=False); "
        "sys.exit('aiohttp' in sys.modules or 'tenantbase.web' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        timeout=20,
        env=clean_environment(TENANTBASE_DATABASE=database),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(output) and bool(done.stdout) == bool(output)


@pytest.mark.parametrize("number", ["-5", "-0", "-1.5", "-1e3", "-12.25E-2"])
def test_a_negative_number_is_not_an_option(tenantbase: Tenantbase, number: str) -> None:
    assert tenantbase("set", "counter", number).exit_code == 0
    assert tenantbase("get", "counter").stdout == f"{number}\n"
    assert tenantbase("set", number, number, "--ttl", "100").exit_code == 0
    assert tenantbase("get", number).stdout == f"{number}\n"
    assert tenantbase("set", "--ttl", number, "k", "1").exit_code == 1
    assert tenantbase("delete", number).exit_code == 0


@pytest.mark.parametrize("value", ["--tll", "-x", "-5x"])
def test_arguments_like_options_need_two_dashes(tenantbase: Tenantbase, value: str) -> None:
    refused = tenantbase("set", "k", value)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("To give it as an argument, put -- before it.\n")
    assert tenantbase("set", "k", "--", value).exit_code == 0
    assert msgspec.json.decode(tenantbase("get", "k").stdout) == value


@pytest.mark.parametrize("name", [":memory:", "file:x.db", "file::memory:?cache=shared"])
@pytest.mark.parametrize("args", [["set", "k", "1"], ["import"], ["export"], ["serve"]])
def test_a_database_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, args: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args, "--database", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: --database: {name!r}: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
