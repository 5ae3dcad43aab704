"""The options: names, defaults, limits and help, read from the command line and the environment.

One field of ``Config`` is one option: ``max_value_bytes`` is ``--max-value-bytes`` on the command
line and ``TENANTBASE_MAX_VALUE_BYTES`` in the environment. The command line wins. To add an option,
add a field. Nothing else interprets environment variables.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from tenantbase.errors import ConfigError
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.process import option_types as read
from tenantbase.process.endpoints import Endpoint, TcpEndpoint
from tenantbase.process.environment import (
    INJECTOR,
    is_injected_address,
    unknown_variables,
    wants_traces,
)
from tenantbase.process.option_types import LOG_LEVELS, MIB
from tenantbase.process.options import flag, option, options_of
from tenantbase.process.service_manager import ServiceManager
from tenantbase.secret import Secret

# Not options: no deployment has needed another value.
MAX_BATCH_ENTRIES: Final = 10_000  # keys or entries in one bulk operation
HEARTBEAT_SECONDS: Final = 15.0  # between heartbeats to a watcher without events


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every option, valid. Times are in seconds, sizes in bytes unless the name says otherwise."""

    host: str | None = option(
        read.host,
        None,
        "HOST",
        "The only address to listen on; anything but loopback needs a database with tokens, or --insecure.",
        shown="127.0.0.1 and ::1",
    )
    port: int = option(
        read.integer(0, 65535), 8000, "PORT", "Port to listen on; 0 picks a free one."
    )
    listen: tuple[Endpoint, ...] = option(
        read.endpoint,
        (),
        "HOST:PORT|unix:PATH|systemd",
        "Listen here instead of at --host and --port; also [IPv6]:PORT, systemd:NAME for one of the"
        " sockets of a unit, and fd:NUMBER.",
        many=True,
    )
    socket_mode: int = option(
        read.socket_mode,
        0o600,
        "MODE",
        "Permissions of the Unix sockets that --listen creates.",
        shown="0600",
    )
    database: Path | DatabaseAddress = option(
        read.database,
        Path("tenantbase.db"),
        "FILE|postgresql://USER@HOST,.../NAME",
        "The SQLite database, created if it does not exist; or one on PostgreSQL, which several"
        " machines may share: with all servers that may be the primary.",
    )
    store_timeout: float = option(
        read.seconds(60),
        2.0,
        "SECONDS",
        "How long PostgreSQL may take to answer; then the primary is looked for again.",
    )
    store_confirm: Literal["commit", "standby", "none"] = option(
        read.choice("commit", "standby", "none"),
        "standby",
        "commit|standby|none",
        "What confirms PostgreSQL's answers: a commit that waits for the synchronous standby; asking"
        " that standby; nothing, if something else guarantees a single primary.",
    )
    store_unreplicated: bool = option(
        read.switch,
        False,
        "",
        "Accept a PostgreSQL without a synchronous standby: what it acknowledged is lost with it.",
    )
    url: str | None = option(
        read.url, None, "URL", "Use the server at this URL instead of opening the database."
    )
    tls_ca: Path | None = option(
        read.file_name,
        None,
        "FILE",
        "For an https URL: trust only the certificate authorities in this file (PEM).",
    )
    token: Secret | None = option(
        read.token,
        None,
        "TOKEN",
        "The token for the server at --url. Other users of this machine can see the command line:"
        " prefer --token-file or TENANTBASE_TOKEN.",
    )
    token_file: Path | None = option(
        read.file_name, None, "FILE", "Read the token for the server at --url from this file."
    )
    tenant: str | None = option(
        read.tenant,
        None,
        "NAME",
        "The tenant to work on; if it is not given, that of the token, or default.",
    )
    memcached: Literal["auto", "off"] | tuple[MemcacheAddress, ...] = option(
        read.memcached,
        "auto",
        "auto|off|ADDRESS,...",
        "The cache: auto starts a private memcached if the program is installed; HOST:PORT or"
        " unix:PATH is your own, and several, with commas between them, share the items.",
    )
    memcached_memory: int = option(
        read.integer(2, 1 << 20), 64, "MB", "Memory of the private memcached, in megabytes."
    )
    cache_timeout: float = option(
        read.seconds(60),
        0.1,
        "SECONDS",
        "Timeout for a memcached operation; the database answers instead.",
    )
    max_value_bytes: int = option(
        read.size(1, 64 * MIB), MIB, "SIZE", "Largest value, up to 64MiB.", shown="1MiB"
    )
    max_request_bytes: int = option(
        read.size(1, 1024 * MIB),
        8 * MIB,
        "SIZE",
        "Largest request body; at least --max-value-bytes.",
        shown="8MiB, or twice --max-value-bytes",
    )
    max_inflight_bytes: int = option(
        read.size(MIB, 1 << 40),
        48 * MIB,
        "SIZE",
        "Memory for the request bodies in flight in a worker, and as much again for answers that"
        " clients have yet to read; at least --max-request-bytes.",
        shown="48MiB, or twice --max-request-bytes",
    )
    max_connections: int = option(
        read.integer(1, 1_000_000),
        10_000,
        "N",
        "Open connections per worker; further ones get a 503.",
    )
    max_requests: int = option(
        read.integer(1, 1_000_000),
        # A worker answers some 15,000 requests a second, so the last of these waits for a quarter
        # of a second. With more, only the wait would grow.
        4_000,
        "N",
        "Requests in flight per worker, watches aside; further ones get a 503.",
    )
    allowed_host: tuple[str, ...] = option(
        read.host,
        (),
        "HOST",
        "A name to accept as Host, besides loopback names.",
        many=True,
    )
    cors_origin: tuple[str, ...] = option(
        read.origin,
        (),
        "ORIGIN",
        "An origin whose pages may call the service; http://localhost:* allows any port.",
        many=True,
    )
    trusted_proxy: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"], ...] = (
        option(
            read.proxy,
            (),
            "NETWORK|unix",
            "Proxies whose X-Forwarded-For and X-Forwarded-Proto to believe, such as 10.0.0.0/8; unix"
            " means those on Unix sockets.",
            many=True,
        )
    )
    tls_cert: Path | None = option(
        read.file_name,
        None,
        "FILE",
        "Serve HTTPS with this certificate chain (PEM); SIGHUP reloads it and the key.",
    )
    tls_key: Path | None = option(
        read.file_name, None, "FILE", "Private key of --tls-cert (PEM), unencrypted."
    )
    tls_client_ca: Path | None = option(
        read.file_name,
        None,
        "FILE",
        "Accept only clients with a certificate from one of these authorities (PEM).",
    )
    insecure: bool = option(
        read.switch,
        False,
        "",
        "Allow any address while the database has no tokens, so that anybody may use it.",
    )
    workers: int = option(
        read.workers,
        1,
        "N|auto",
        "Worker processes; auto starts one for each available processor.",
    )
    watchdog_seconds: float = option(
        # Nothing blocks an event loop for even a second, but on a machine that swaps, one may be
        # slow and not stuck.
        read.seconds(3600, zero=True),
        30.0,
        "SECONDS",
        "Kill and replace a worker whose event loop blocks for this long; 0 turns this off.",
    )
    drain_delay: float = option(
        read.seconds(3600, zero=True),
        0.0,
        "SECONDS",
        "On shutdown, how long the port stays open while the health check says 503.",
    )
    drain_timeout: float = option(
        read.seconds(3600, zero=True),
        30.0,
        "SECONDS",
        "Grace period for in-flight requests on shutdown.",
    )
    write_timeout: float = option(
        read.seconds(3600),
        10.0,
        "SECONDS",
        "How long a write, or opening the database, may wait for a lock.",
    )
    read_timeout: float = option(
        read.seconds(3600), 5.0, "SECONDS", "How long a read may wait for the database."
    )
    keepalive_timeout: float = option(
        read.seconds(3600),
        75.0,
        "SECONDS",
        "How long a connection may be idle, or take to send a request's headers.",
    )
    body_timeout: float = option(
        read.seconds(3600), 30.0, "SECONDS", "How long a client may take to send a request body."
    )
    send_timeout: float = option(
        read.seconds(3600),
        300.0,
        "SECONDS",
        "How long a client may read nothing of its response before it is cut off.",
    )
    no_metrics: bool = option(
        read.switch, False, "", "Don't count and time requests; /metrics and /v1/stats answer 404."
    )
    metrics_per_tenant: bool = option(
        read.switch, False, "", "Show each tenant's entries, bytes and limits in /metrics."
    )
    no_fast_path: bool = option(read.switch, False, "", "Answer every request through aiohttp.")
    no_console: bool = option(read.switch, False, "", "Do not serve the console at /.")
    log_level: str = option(
        read.choice(*LOG_LEVELS), "warning", "|".join(LOG_LEVELS), "The least severe lines to log."
    )
    log_format: str = option(
        read.choice("auto", "text", "json"),
        "auto",
        "auto|text|json",
        "The log on standard error; auto: text on a terminal, otherwise one JSON object a line.",
    )
    access_log: str = option(
        read.choice("off", "slow", "all"),
        "slow",
        "off|slow|all",
        "Log a line for each request that takes longer than --slow-seconds, or for each one.",
    )
    slow_seconds: float = option(
        read.seconds(3600, zero=True), 1.0, "SECONDS", "A request that takes longer is slow."
    )
    log_keys: bool = option(
        read.switch, False, "", "Show keys in the log; values and tokens never are."
    )

    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Not an option: a line for each environment variable that was ignored, and why."""
    manager: ServiceManager = field(default_factory=ServiceManager, compare=False)
    """Not an option: what the service manager passed."""
    sentry_dsn: Secret | None = None
    """Not an option, but Sentry's own variable. None: errors are not reported."""
    traces: bool = False
    """Not an option: whether OpenTelemetry's own variables ask for traces."""

    @classmethod
    def load(cls, given: Mapping[str, object], environ: Mapping[str, str]) -> Config:
        """The configuration of one command.

        Args:
            given: the options that the command takes, each with its value on the command line:
                text, a tuple of texts if it may be repeated, or True for a switch. If it was not
                given: None, an empty tuple or False. Other options keep their defaults, and their
                variables are not read.
            environ: the environment. An empty variable counts as unset.

        Raises:
            ConfigError: one line for every mistake. An unknown variable is not a mistake; it goes
                to ``ignored``.
        """
        values: dict[str, Any] = {}
        mistakes = []
        ignored = unknown_variables(environ, [option.variable for option in OPTIONS])
        for each in OPTIONS:
            if each.name not in given:
                continue
            stated = given[each.name]
            try:
                if stated not in (None, (), False):
                    source = each.flag
                    values[each.name] = each.read(stated)
                elif text := environ.get(each.variable):
                    source = each.variable
                    if is_injected_address(source, text):
                        ignored.append(
                            f"{source}: {text!r} is ignored: {INJECTOR}, and it is not a"
                            f" {each.metavar}; to choose one, use {each.flag}"
                        )
                        continue
                    values[each.name] = each.read(text.split(",") if each.many else text)
            except ValueError as error:
                mistakes.append(f"{source}: {error}")
        if given.get("database") and not given.get("url"):
            values.pop("url", None)  # the command line wins over the environment
        if given.get("host") or given.get("port"):
            values.pop("listen", None)
        for one, other in (("token", "token_file"), ("token_file", "token")):
            if given.get(one) and not given.get(other):
                values.pop(other, None)
        dsn = Secret(environ.get("SENTRY_DSN", "")) or None
        config = cls(
            **values,
            ignored=tuple(ignored),
            manager=ServiceManager.of(environ),
            sentry_dsn=dsn,
            traces=wants_traces(environ),
        )
        if "max_request_bytes" not in values:
            config = replace(config, max_request_bytes=max(8 * MIB, 2 * config.max_value_bytes))
        if "max_inflight_bytes" not in values:
            inflight = max(48 * MIB, 2 * config.max_request_bytes)
            config = replace(config, max_inflight_bytes=inflight)
        mistakes += _contradictions(config, given)
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return config

    @property
    def file(self) -> Path:
        """The database file. Raises ConfigError if the database is on a server."""
        if isinstance(self.database, Path):
            return self.database
        raise ConfigError("--database: this needs a database file; use PostgreSQL's own tools")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where to listen."""
        return self.listen or (TcpEndpoint(self.host, self.port, "--host"),)


OPTIONS: Final = options_of(Config)


def _contradictions(config: Config, given: Mapping[str, object]) -> list[str]:
    mistakes = []
    if given.get("database") and given.get("url"):
        mistakes.append("--database and --url: give one, not both")
    if given.get("listen") and (given.get("host") or given.get("port")):
        mistakes.append("--listen: replaces --host and --port; give the address as HOST:PORT")
    chosen = [each for each in config.listen if getattr(each, "port", None) != 0]
    if len(set(chosen)) < len(chosen):  # or the system would say that another process has it
        mistakes.append("--listen: names one address twice")
    if config.max_request_bytes < config.max_value_bytes:
        mistakes.append("--max-request-bytes: less than --max-value-bytes")
    if config.max_inflight_bytes < config.max_request_bytes:
        mistakes.append("--max-inflight-bytes: less than --max-request-bytes")
    for one, other in (
        ("tls_cert", "tls_key"),
        ("tls_key", "tls_cert"),
        ("tls_client_ca", "tls_cert"),
    ):
        if getattr(config, one) is not None and getattr(config, other) is None:
            mistakes.append(f"{flag(one)}: needs {flag(other)} as well")
    for name in ("tls_ca", "token", "token_file"):
        if given.get(name) and config.url is None:
            mistakes.append(f"{flag(name)}: needs --url as well")
    if config.token is not None and config.token_file is not None:
        mistakes.append("--token and --token-file: give one, not both")
    return mistakes
