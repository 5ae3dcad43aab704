"""The address of a database on PostgreSQL, in the form of libpq's URLs."""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from tenantbase.secret import Secret

SCHEMES: Final = ("postgresql", "postgres")
_DEFAULT_PORT: Final = 5432


class Host(NamedTuple):
    """Where a server listens."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class DatabaseAddress(NamedTuple):
    """A database that may be on any of several servers.

    Attributes:
        url: as given; it may contain a password.
        hosts: of the servers, in the order given.
        database: its name.
    """

    url: Secret
    hosts: tuple[Host, ...]
    database: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``postgresql://USER@HOST[:PORT][,HOST[:PORT]...]/DATABASE[?OPTION=VALUE...]``

        Options, such as ``sslmode`` and ``passfile``, are libpq's. Without a password, one is looked
        for in PGPASSWORD and in the password file.

        Raises:
            ValueError: what is wrong. The text does not contain the password.
        """
        # Not by ``urlsplit``: newer releases of Python refuse a second address in brackets.
        scheme, separator, rest = text.partition("://")
        if scheme not in SCHEMES or not separator:
            raise ValueError("expected postgresql://USER@HOST/DATABASE")
        rest, _, fragment = rest.partition("#")
        netloc, _, path = rest.partition("?")[0].partition("/")
        if fragment or ("@" in text and "@" not in netloc):
            # What follows would be taken for a host, and be shown.
            raise ValueError("in a password, the characters / ? # and @ must be percent-encoded")
        places = netloc.rpartition("@")[2]
        hosts = tuple(_host(place) for place in places.split(","))
        if not path or "/" in path:
            raise ValueError("the URL must name the database: postgresql://USER@HOST/DATABASE")
        return cls(Secret(text), hosts, path)

    def __str__(self) -> str:
        return f"database {self.database!r} on {', '.join(map(str, self.hosts))}"


def _host(text: str) -> Host:
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        valid = bool(bracket) and (not rest or rest.startswith(":"))
    else:
        name, _, port = text.partition(":")
        valid = True
    if not name or not valid:
        raise ValueError(f"{text!r}: expected HOST or HOST:PORT")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
    return Host(name, int(port) if port else _DEFAULT_PORT)
