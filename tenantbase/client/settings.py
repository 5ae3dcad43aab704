"""A client's settings, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tenantbase.client.wire import check_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Valid arguments of ``Client``, which describes them.

    Attributes:
        url: without a trailing slash; or ``unix:PATH``.
        headers: sent with every request, those for the token and the tenant included.

    Raises:
        ValueError: one of them is not valid.
    """

    url: str
    headers: Mapping[str, str]
    timeout: float
    connect_timeout: float
    attempts: int
    wait_when_limited: float
    connections: int

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if self.socket == "" or (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
        ):
            raise ValueError(
                "url must look like http://127.0.0.1:8000 or unix:/run/tenantbase.sock"
            )
        if "@" in parts.netloc:
            raise ValueError("url must not have a user or a password: it is shown in error texts")
        if self.attempts < 1 or self.connections < 1:
            raise ValueError("attempts and connections must be at least 1")
        check_finite(
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            wait_when_limited=self.wait_when_limited,
        )
        if self.timeout <= 0 or self.connect_timeout <= 0:
            raise ValueError("timeout and connect_timeout must be positive")
        if self.wait_when_limited < 0:
            raise ValueError("wait_when_limited must not be negative")

    @property
    def socket(self) -> str | None:
        """The path of the Unix socket to connect to; None: ``url`` names a host."""
        kind, _, path = self.url.partition(":")
        return path if kind == "unix" else None

    @property
    def base(self) -> str:
        """The start of every request's URL."""
        return self.url if self.socket is None else "http://localhost"
