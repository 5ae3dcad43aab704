"""Parsers of the options' values.

Each function takes the text of one value and returns the value, or takes limits and returns such a
function. Its ValueError says what was expected.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from tenantbase.errors import InvalidRequest
from tenantbase.figures import MOST_CACHE_SERVERS
from tenantbase.interfaces.memcached.address import LONGEST_PATH, MemcacheAddress
from tenantbase.interfaces.postgres.address import SCHEMES, DatabaseAddress
from tenantbase.process.endpoints import Endpoint, InheritedEndpoint, TcpEndpoint, UnixEndpoint
from tenantbase.process.options import Unshown
from tenantbase.process.processors import usable_processors
from tenantbase.scope import check_tenant
from tenantbase.secret import Secret, bearer_token

MIB: Final = 1 << 20
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_HOST: Final = re.compile(r"[^\s/?#@\[\]]{1,253}")
_SIZE: Final = re.compile("([0-9]{1,15}) ?([kmg]?i?b?)")
_ORIGIN: Final = re.compile(
    r"(https?)://([^\s/?#@\[\]:*%]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{0,9}|:\*)?/?", re.IGNORECASE
)
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_INTEGER: Final = re.compile("[0-9]{1,15}")
_MODE: Final = re.compile("0?[0-7]{3}")
_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": MIB,
    "gib": 1 << 30,
}


def file_name(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("expected a file name")
    return Path(text)


def database(text: str) -> Path | DatabaseAddress:
    if text.partition("://")[0] in SCHEMES:
        try:
            return DatabaseAddress.parse(text)
        except ValueError as error:
            raise Unshown(str(error)) from None  # the text may hold a password
    return database_file(text)


def database_file(text: str) -> Path:
    if text.startswith((":memory:", "file:")):
        raise ValueError(
            "expected the path of a file, because processes share the database"
            f" (use ./{text} for a file of that name)"
        )
    return file_name(text)


def host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError("expected a host name or an IP address") from None
    elif not _HOST.fullmatch(bare):
        raise ValueError("expected a host name or an IP address")
    return bare.lower()


def endpoint(text: str) -> Endpoint:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        path = file_name(rest)
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise ValueError(f"expected a path of at most {LONGEST_PATH} bytes for a Unix socket")
        return UnixEndpoint(path)
    if kind == "systemd":
        return InheritedEndpoint(name=rest)
    if kind == "fd":
        return InheritedEndpoint(descriptor=integer(0, 65535)(rest))
    name, colon, number = text.rpartition(":")
    if not colon or (":" in name and not name.startswith("[")):
        raise ValueError(
            "expected HOST:PORT, [IPv6]:PORT, unix:PATH, systemd, systemd:NAME or fd:NUMBER"
        )
    return TcpEndpoint(host(name), integer(0, 65535)(number))


def socket_mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise ValueError("expected permissions as an octal number, such as 0600 or 0660")
    return int(text, 8)


def proxy(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]:
    return "unix" if text == "unix" else network(text)


def origin(text: str) -> str:
    """An origin as browsers write it: in lower case and ASCII, without the scheme's own port."""
    match = _ORIGIN.fullmatch(text.strip())
    if "*" in text and not (match and match[2].lower() in _LOOPBACK and match[3] == ":*"):
        raise ValueError(
            "only the port of a loopback host can be a wildcard, as in http://localhost:*;"
            " list other origins one by one"
        )
    if match is None:
        raise ValueError(
            "expected a scheme and a host, such as https://app.example.com, with nothing after them"
        )
    scheme, port = match[1].lower(), match[3] or ""
    digits = port[1:]
    if digits.isdecimal():
        if int(digits) > 65535:
            raise ValueError("expected a port up to 65535")
        port = "" if int(digits) == _DEFAULT_PORTS[scheme] else f":{int(digits)}"
    elif not digits:
        port = ""
    return f"{scheme}://{_serialised_host(match[2].lower())}{port}"


def _serialised_host(name: str) -> str:
    try:
        if name.startswith("["):
            return f"[{ipaddress.IPv6Address(name[1:-1])}]"
        return name if name.isascii() else name.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        raise ValueError("expected an origin with a host name or an IP address") from None


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError(
            "expected an address or a network, such as 10.0.0.7 or 10.0.0.0/8, or unix"
        ) from None


def url(text: str) -> str:
    if text.startswith("unix:"):
        return f"unix:{file_name(text.removeprefix('unix:'))}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as http://127.0.0.1:8000, or unix:PATH")
    if "@" in parts.netloc:
        raise Unshown("expected a URL without a user and a password: error texts show it")
    return text.rstrip("/")


def token(text: str) -> Secret:
    try:
        return bearer_token(text.strip())
    except ValueError as error:
        raise Unshown(str(error)) from None


def tenant(text: str) -> str:
    try:
        return check_tenant(text)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None


def size(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text.strip().lower())
        if not match or match[2] not in _UNITS:
            raise ValueError("expected a size such as 1048576 or 2MiB")
        count = int(match[1]) * _UNITS[match[2]]
        if not lowest <= count <= highest:
            raise ValueError(f"expected a size from {_shown(lowest)} to {_shown(highest)}")
        return count

    return parse


def _shown(count: int) -> str:
    return f"{count // MIB}MiB" if count % MIB == 0 else f"{count:,} bytes"


def integer(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not lowest <= int(text) <= highest:
            raise ValueError(f"expected a number from {lowest} to {highest}")
        return int(text)

    return parse


def seconds(highest: float, *, zero: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        lowest = "0" if zero else "more than 0"
        expected = f"expected a number of seconds from {lowest} to {highest:g}"
        try:
            count = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not math.isfinite(count) or not (0 < count <= highest or zero and count == 0):
            raise ValueError(expected)
        return count

    return parse


def memcached(text: str) -> Literal["auto", "off"] | tuple[MemcacheAddress, ...]:
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    servers: list[MemcacheAddress] = []
    for each in map(str.strip, text.split(",")):
        if not each:
            raise ValueError("expected addresses with single commas between them")
        if each in ("auto", "off"):
            raise ValueError(f"{each} cannot be one of several")
        server = MemcacheAddress.parse(each)
        if server in servers:
            raise ValueError(f"{server} is given twice")
        servers.append(server)
    if len(servers) > MOST_CACHE_SERVERS:
        raise ValueError(f"expected at most {MOST_CACHE_SERVERS} servers, not {len(servers)}")
    return tuple(servers)


def workers(text: str) -> int:
    if text == "auto":
        return usable_processors()
    try:
        return integer(1, 1024)(text)
    except ValueError:
        raise ValueError("expected auto or a number from 1 to 1024") from None


def switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected true or false")


def choice(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return text.lower()

    return parse
