"""Certificates in PEM files; errors name the option that gave the file."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from tenantbase.errors import ConfigError

_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"


def read_pem(option: str, path: Path) -> str:
    """The text of a PEM file. Raises ConfigError if it cannot be read."""
    try:
        # Comments around the PEM blocks may be in any encoding.
        return path.read_text("ascii", "replace").replace("\ufffd", "?")
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read: {error.strerror}") from error


def trust(context: ssl.SSLContext, option: str, path: Path) -> None:
    """Make a context trust every certificate in a file.

    Raises:
        ConfigError: the file cannot be read, or does not hold certificates.
    """
    text = read_pem(option, path)
    if _CERTIFICATE not in text:
        raise ConfigError(f"{option}: {path} holds no certificate in PEM form")
    try:
        context.load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise ConfigError(f"{option}: {path} holds a damaged certificate") from error


def client_context(authorities: Path) -> ssl.SSLContext:
    """A TLS configuration for clients that trusts only the certificate authorities in a file.

    Raises:
        ConfigError: the file cannot be used. The text names ``--tls-ca``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    trust(context, "--tls-ca", authorities)
    return context
