"""Options: their sources, which source wins, and the errors."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tenantbase.errors import ConfigError
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.process.config import OPTIONS, Config
from tenantbase.process.endpoints import InheritedEndpoint, TcpEndpoint, UnixEndpoint

# Every option as click passes it if the command line does not have it.
SILENT: dict[str, Any] = {
    option.name: () if option.many else False if option.switch else None for option in OPTIONS
}


def load(given: dict[str, Any] | None = None, **variables: str) -> Config:
    return Config.load(
        SILENT | (given or {}), {f"TENANTBASE_{name}": text for name, text in variables.items()}
    )


# An option, a text, and the parsed value.
GOOD: list[tuple[str, str, object]] = [
    ("host", "::1", "::1"),
    ("host", "[::1]", "::1"),
    ("host", "LocalHost", "localhost"),
    ("listen", "localhost:0", (TcpEndpoint("localhost", 0),)),
    ("listen", "[::1]:80", (TcpEndpoint("::1", 80),)),
    ("listen", "unix:/run/t b.sock", (UnixEndpoint(Path("/run/t b.sock")),)),
    ("listen", "systemd", (InheritedEndpoint(),)),
    ("listen", "systemd:http", (InheritedEndpoint("http"),)),
    ("listen", "fd:3", (InheritedEndpoint(descriptor=3),)),
    ("socket_mode", "0660", 0o660),
    ("socket_mode", "777", 0o777),
    ("trusted_proxy", "unix", ("unix",)),
    ("url", "unix:/run/t.sock", "unix:/run/t.sock"),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("database", "/tmp/x y.db", Path("/tmp/x y.db")),
    ("url", "http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
    ("url", "https://example.com/base", "https://example.com/base"),
    ("tenant", "a-1_b", "a-1_b"),
    ("memcached", "auto", "auto"),
    ("memcached", "off", "off"),
    ("memcached", "localhost:11211", (MemcacheAddress(host="localhost", port=11211),)),
    ("memcached", "unix:/run/m.sock", (MemcacheAddress(path="/run/m.sock"),)),
    (
        "memcached",
        "[::1]:1, LocalHost:2,unix:/run/M.sock",
        (
            MemcacheAddress(host="::1", port=1),
            MemcacheAddress(host="localhost", port=2),
            MemcacheAddress(path="/run/M.sock"),
        ),
    ),
    (
        "memcached",
        ",".join(f"m:{port}" for port in range(1, 65)),
        tuple(MemcacheAddress(host="m", port=port) for port in range(1, 65)),
    ),
    ("memcached_memory", "2", 2),
    ("cache_timeout", "0.05", 0.05),
    ("max_value_bytes", "1048576", 1 << 20),
    ("max_value_bytes", "2MiB", 2 << 20),
    ("max_value_bytes", "64 mib", 64 << 20),
    ("max_value_bytes", "100kB", 100_000),
    ("max_value_bytes", "512 B", 512),
    ("max_request_bytes", "1GiB", 1 << 30),
    ("max_inflight_bytes", "100MiB", 100 << 20),
    ("max_connections", "1", 1),
    ("max_requests", "1", 1),
    ("trusted_proxy", "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
    ("allowed_host", "a.example", ("a.example",)),
    ("cors_origin", "https://App.example:8443", ("https://app.example:8443",)),
    ("cors_origin", "https://app.example:443", ("https://app.example",)),
    ("cors_origin", "HTTP://app.example:80/", ("http://app.example",)),
    ("cors_origin", "http://app.example:443", ("http://app.example:443",)),
    ("cors_origin", "http://app.example:", ("http://app.example",)),
    ("cors_origin", "http://app.example:08080", ("http://app.example:8080",)),
    ("cors_origin", "http://[0:0::1]:8000", ("http://[::1]:8000",)),
    ("cors_origin", "https://b\u00fccher.example", ("https://xn--bcher-kva.example",)),
    ("cors_origin", "http://localhost:*", ("http://localhost:*",)),
    ("cors_origin", "https://[::1]:*", ("https://[::1]:*",)),
    ("workers", "3", 3),
    ("drain_delay", "0", 0.0),
    ("watchdog_seconds", "0", 0.0),
    ("drain_timeout", "0", 0.0),
    ("send_timeout", "0.5", 0.5),
    ("write_timeout", "1e-1", 0.1),
    ("keepalive_timeout", "5", 5.0),
    ("body_timeout", "3600", 3600.0),
    ("log_level", "INFO", "info"),
]

# An option and an invalid text.
BAD: list[tuple[str, str]] = [
    ("database", ":memory:"),
    ("database", "file:x.db"),
    ("host", "two words"),
    ("host", "http://127.0.0.1"),
    ("host", "127.0.0.1:8000"),
    ("host", "a/b"),
    ("port", "65536"),
    ("port", "-1"),
    ("port", "80.0"),
    ("port", "\u0663"),
    ("port", "1_0"),
    ("database", "a\0b"),
    ("url", "127.0.0.1:8000"),
    ("url", "ftp://example.com"),
    ("url", "http://"),
    ("tenant", "Acme"),
    ("tenant", "a/b"),
    ("memcached", "on"),
    ("memcached", "localhost:0"),
    ("memcached", "unix:"),
    ("memcached", "m:1,,m:2"),
    ("memcached", "m:1,"),
    ("memcached", "m:1,n:1,M:1"),
    ("memcached", "[::1]:1,[0::1]:1"),
    ("memcached", "auto,m:1"),
    ("memcached", "m:1,off"),
    ("memcached", "m:1,n"),
    ("memcached", ",".join(f"m:{port}" for port in range(1, 66))),
    ("memcached_memory", "1"),
    ("cache_timeout", "0"),
    ("cache_timeout", "-1"),
    ("cache_timeout", "nan"),
    ("cache_timeout", "inf"),
    ("cache_timeout", "61"),
    ("cache_timeout", "soon"),
    ("max_value_bytes", "0"),
    ("max_value_bytes", "65MiB"),
    ("max_value_bytes", "1.5MiB"),
    ("max_value_bytes", "1TiB"),
    ("max_value_bytes", "1i"),
    ("max_request_bytes", "-5"),
    ("allowed_host", "http://a.example"),
    ("cors_origin", "a.example"),
    ("cors_origin", "https://a.example/path"),
    ("cors_origin", "https://user@a.example"),
    ("cors_origin", "*"),
    ("cors_origin", "null"),
    ("cors_origin", "ftp://a.example"),
    ("cors_origin", "http://a.example:*"),
    ("cors_origin", "http://localhost.example:*"),
    ("cors_origin", "https://*.a.example"),
    ("cors_origin", "http://localhost:80*"),
    ("cors_origin", "http://a.example:65536"),
    ("cors_origin", "http://a.example//"),
    ("cors_origin", "http://[::g]"),
    ("cors_origin", "http://a.example?"),
    ("listen", "8000"),
    ("listen", "localhost"),
    ("listen", "localhost:"),
    ("listen", "localhost:65536"),
    ("listen", "::1:80"),
    ("listen", "[::g]:80"),
    ("listen", ":80"),
    ("listen", "unix:"),
    ("listen", "unix:/" + "x" * 103),
    ("listen", "unix:/\0"),
    ("listen", "fd:"),
    ("listen", "fd:x"),
    ("socket_mode", "0800"),
    ("socket_mode", "1777"),
    ("socket_mode", "rw"),
    ("trusted_proxy", "unix:/x"),
    ("url", "unix:"),
    ("workers", "0"),
    ("workers", "all"),
    ("drain_delay", "-1"),
    ("watchdog_seconds", "never"),
    ("drain_timeout", "-0.1"),
    ("send_timeout", "0"),
    ("max_inflight_bytes", "1MB"),
    ("max_connections", "0"),
    ("max_requests", "0"),
    ("trusted_proxy", "10.0.0.1/8"),
    ("trusted_proxy", "proxy.example"),
    ("log_level", "loud"),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_an_option_means_the_same_from_either_source(name: str, text: str, value: object) -> None:
    more = {"max_request_bytes": "1GiB"} if name == "max_value_bytes" else {}
    many = next(option.many for option in OPTIONS if option.name == name)
    assert getattr(load(more | {name: (text,) if many else text}), name) == value
    assert getattr(load(more, **{name.upper(): text}), name) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_mistake_is_named_by_its_source(name: str, text: str) -> None:
    option = next(option for option in OPTIONS if option.name == name)
    with pytest.raises(ConfigError) as from_command_line:
        load({name: (text,) if option.many else text})
    assert str(from_command_line.value).startswith(f"{option.flag}: {text!r}: ")
    if "\0" in text:
        return  # an environment variable cannot hold a NUL
    with pytest.raises(ConfigError) as from_environment:
        load({}, **{name.upper(): text})
    assert str(from_environment.value).startswith(f"{option.variable}: {text!r}: ")


def test_as_many_workers_as_cores() -> None:
    assert 1 <= load({"workers": "auto"}).workers <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text", ["1", "true", "Yes", "ON"])
def test_a_switch_from_the_environment(text: str) -> None:
    assert load(INSECURE=text).insecure
    assert load({"insecure": True}, INSECURE="0").insecure


@pytest.mark.parametrize("text", ["0", "false", "No", "off", ""])
def test_a_switch_that_is_off(text: str) -> None:
    assert not load(INSECURE=text).insecure


def test_a_switch_is_true_or_false() -> None:
    with pytest.raises(ConfigError, match="TENANTBASE_INSECURE: 'maybe': expected true or false"):
        load(INSECURE="maybe")


def test_the_command_line_wins() -> None:
    assert load({"port": "1"}, PORT="2").port == 1
    assert load({"allowed_host": ("a", "b")}, ALLOWED_HOST="c").allowed_host == ("a", "b")


def test_many_are_separated_by_commas_in_the_environment() -> None:
    assert load(ALLOWED_HOST="a.example, b.example ,").allowed_host == ("a.example", "b.example")


def test_an_empty_variable_is_unset_and_an_empty_option_an_error() -> None:
    assert load(PORT="").port == 8000
    with pytest.raises(ConfigError, match="--port: ''"):
        load({"port": ""})


def test_variables_of_other_commands_options_are_not_read() -> None:
    assert Config.load({"database": None}, {"TENANTBASE_PORT": "x"}).port == 8000


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("TENANTBASE_PRT", "; did you mean TENANTBASE_PORT?"),
        ("TENANTBASE_MAX_VALUE_BYTE", "; did you mean TENANTBASE_MAX_VALUE_BYTES?"),
        ("TENANTBASE_", "there is no such variable"),
        ("TENANTBASE_FOO", "there is no such variable"),
        ("TENANTBASE_port", "; did you mean TENANTBASE_PORT?"),
        ("TENANTBASE_URL_", "; did you mean TENANTBASE_URL?"),
    ],
)
def test_an_unknown_variable_is_ignored_with_a_warning(variable: str, near: str) -> None:
    config = Config.load({}, {variable: "", "TENANTBASEMENT": "x", "PORT": "x"})
    (line,) = config.ignored
    assert line.startswith(f"{variable} is ignored: there is no such variable")
    assert line.endswith(near)


# What Kubernetes sets in the pods beside a service (its "Service environment variables"), and
# Docker for a link.
INJECTED = {
    "SERVICE_HOST": "10.0.0.1",
    "SERVICE_PORT": "8000",
    "SERVICE_PORT_HTTP": "8000",
    "PORT": "tcp://10.0.0.1:8000",
    "PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "PORT_8000_TCP_PROTO": "tcp",
    "PORT_8000_TCP_PORT": "8000",
    "PORT_8000_TCP_ADDR": "10.0.0.1",
    "PORT_8125_UDP_ADDR": "10.0.0.1",
    "MEMCACHED_PORT": "tcp://10.0.0.2:11211",
    "MEMCACHED_SERVICE_HOST": "10.0.0.2",
    "NAME": "/web/tenantbase",
    "ENV_LANG": "C",
}


def test_an_orchestrators_variables_are_ignored_with_a_warning() -> None:
    config = load({}, **INJECTED)
    assert config == load()
    all_of_them, address = sorted(config.ignored, key=len, reverse=True)
    named = {name.strip() for name in all_of_them.partition(":")[0].split(",")}
    assert named == {f"TENANTBASE_{name}" for name in INJECTED if name != "PORT"}
    assert "Kubernetes" in all_of_them
    assert address.startswith("TENANTBASE_PORT: 'tcp://10.0.0.1:8000' is ignored: Kubernetes")
    assert address.endswith("use --port")


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8000", "udp://[fd00::1]:53", "sctp://h:1"])
def test_a_port_variable_with_an_address_is_ignored(address: str) -> None:
    assert load(PORT=address) == load()
    assert load({"port": "1"}, PORT=address).ignored == ()


@pytest.mark.parametrize("text", ["tcp:/10.0.0.1:8000", "http://10.0.0.1:8000", "10.0.0.1:8000"])
def test_other_invalid_ports_are_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="^TENANTBASE_PORT: "):
        load(PORT=text)
    with pytest.raises(ConfigError, match="^--port: "):
        load({"port": "tcp://10.0.0.1:8000"})
    with pytest.raises(ConfigError, match="^TENANTBASE_WORKERS: "):
        load(WORKERS="tcp://10.0.0.1:8000")


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load({"port": "x", "workers": "0"}, HOSTS="a", LOG_LEVEL="loud")
    named = [line.partition(":")[0] for line in str(error.value).splitlines()]
    assert named == ["--port", "--workers", "TENANTBASE_LOG_LEVEL"]


def test_an_address_replaces_host_and_port() -> None:
    there = TcpEndpoint("::1", 1)
    assert load().endpoints == (TcpEndpoint(None, 8000, "--host"),)
    assert load({"host": "a", "port": "1"}).endpoints == (TcpEndpoint("a", 1, "--host"),)
    assert load({"listen": ("[::1]:1",)}, HOST="a", PORT="2").endpoints == (there,)
    assert load(LISTEN="[::1]:1", HOST="a").endpoints == (there,)
    assert load({"port": "2"}, LISTEN="[::1]:1").endpoints == (TcpEndpoint(None, 2, "--host"),)
    for name in ("host", "port"):
        with pytest.raises(ConfigError, match="^--listen: replaces --host and --port"):
            load({"listen": ("[::1]:1",), name: "1"})


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "unix:/run/x.sock", "systemd", "fd:3"])
def test_no_address_is_named_twice(address: str) -> None:
    with pytest.raises(ConfigError, match="^--listen: names one address twice$"):
        load({"listen": (address, "localhost:9000", address)})
    assert load(
        {"listen": ("127.0.0.1:0", "127.0.0.1:0")}
    ).listen, "two ports of the system's choice"


def test_requests_hold_values_of_the_largest_size() -> None:
    assert load().max_request_bytes == 8 << 20
    assert load({"max_value_bytes": "64MiB"}).max_request_bytes == 128 << 20
    with pytest.raises(ConfigError, match="--max-request-bytes"):
        load({"max_value_bytes": "2MiB", "max_request_bytes": "1MiB"})


def test_the_largest_request_fits_into_the_budget() -> None:
    assert load().max_inflight_bytes == 48 << 20
    assert load({"max_request_bytes": "100MiB"}).max_inflight_bytes == 200 << 20
    with pytest.raises(ConfigError, match="--max-inflight-bytes"):
        load({"max_request_bytes": "8MiB", "max_inflight_bytes": "4MiB"})


def test_the_database_or_a_url() -> None:
    with pytest.raises(ConfigError, match="--database and --url"):
        load({"database": "x.db", "url": "http://localhost"})
    assert load({"database": "x.db"}, URL="http://localhost").url is None
    assert load({"url": "http://localhost"}, DATABASE="x.db").url == "http://localhost"
    assert load(URL="http://localhost", DATABASE="x.db").url == "http://localhost"


TOKEN = "tb_" + "s3cr-t_" * 6 + "x"


def test_token_has_four_sources() -> None:
    url = {"url": "http://localhost"}
    assert load(url | {"token": TOKEN}).token == TOKEN
    assert load(url, TOKEN=f" {TOKEN}\n").token == TOKEN
    assert load(url | {"token_file": "t"}).token_file == Path("t")
    assert load(url, TOKEN_FILE="t").token_file == Path("t")


def test_command_line_chooses_the_token() -> None:
    url = {"url": "http://localhost"}
    chosen = load(url | {"token": TOKEN}, TOKEN="other", TOKEN_FILE="t")
    assert (chosen.token, chosen.token_file) == (TOKEN, None)
    chosen = load(url | {"token_file": "t"}, TOKEN="other", TOKEN_FILE="u")
    assert (chosen.token, chosen.token_file) == (None, Path("t"))
    for given, variables in (
        ({"token": TOKEN, "token_file": "t"}, {}),
        ({}, {"TOKEN": TOKEN, "TOKEN_FILE": "t"}),
    ):
        with pytest.raises(ConfigError, match="--token and --token-file: give one, not both"):
            load(url | given, **variables)


@pytest.mark.parametrize("name", ["token", "token_file"])
def test_token_is_for_a_server(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: needs --url as well"):
        load({name: "t"})
    assert load(None, **{name.upper(): "t"}).url is None


@pytest.mark.parametrize("text", [f"{TOKEN} {TOKEN}", f"Bearer {TOKEN}", f"{TOKEN}\0", "é"])
def test_malformed_token_is_not_shown(text: str) -> None:
    for given, variables in (({"token": text}, {}), ({}, {"TOKEN": text})):
        with pytest.raises(ConfigError) as caught:
            load({"url": "http://localhost"} | given, **variables)
        assert "a token is letters" in str(caught.value)
        assert "s3cr" not in str(caught.value) and "é" not in str(caught.value)


@pytest.mark.parametrize("user", ["user:s3cret@", "s3cret@", ":s3cret@"])
def test_url_with_a_password_is_not_shown(user: str) -> None:
    with pytest.raises(ConfigError, match="--url: expected a URL without a user") as caught:
        load({"url": f"https://{user}localhost"})
    assert "s3cret" not in str(caught.value)


def test_token_is_not_in_the_repr() -> None:
    assert TOKEN not in repr(load({"url": "http://localhost", "token": TOKEN}))


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load().port = 1  # type: ignore[misc]


def test_defaults_are_shown_as_they_are_written() -> None:
    shown = {option.name: option.default for option in OPTIONS if not option.many}
    config = load()
    for name, text in shown.items():
        if text and name not in ("max_request_bytes", "max_inflight_bytes", "host"):
            assert load({name: text}) == config


def test_a_refused_wildcard_is_explained() -> None:
    with pytest.raises(
        ConfigError, match=r"--cors-origin: 'https://\*\.a\.example': .*localhost:\*"
    ):
        load({"cors_origin": ("https://*.a.example",)})
