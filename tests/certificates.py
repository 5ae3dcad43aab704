"""Certificates for tests, made by the program ``openssl``: an authority and the certificates it
signs."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_DAYS = ("-days", "2")
_SIGNS = "keyUsage=critical,keyCertSign,cRLSign"  # since Python 3.13, an authority must say so


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM files.

    Attributes:
        serial: of the certificate, in upper-case hexadecimal, as Python's ``getpeercert`` has it.
    """

    certificate: Path
    key: Path
    serial: str

    @property
    def options(self) -> tuple[str, ...]:
        """The options that make ``tenantbase serve`` use it."""
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))


class Authority:
    """A certificate authority, in a directory."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._made = 0
        self.certificate = directory / "authority.pem"
        self._key = directory / "authority.key"
        usage = ("-addext", _SIGNS)
        self._request(
            self.certificate, self._key, name, "basicConstraints=critical,CA:TRUE", *usage
        )

    def issue(self, name: str = "localhost", *more: str) -> Pair:
        """A certificate for a host or a client, with its key.

        Args:
            more: further arguments of ``openssl req``.
        """
        self._made += 1
        certificate = self._directory / f"{self._made}.pem"
        key = self._directory / f"{self._made}.key"
        self._request(
            certificate,
            key,
            name,
            f"subjectAltName=DNS:{name},IP:127.0.0.1",
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", str(self.certificate), "-CAkey", str(self._key)),
            *more,
        )
        shown = openssl("x509", "-in", str(certificate), "-noout", "-serial")
        return Pair(certificate, key, shown.strip().rpartition("=")[2])

    def trusted(self, client: Pair | None = None) -> ssl.SSLContext:
        """A context for clients that trust this authority, and may have a certificate of their own."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    @staticmethod
    def _request(certificate: Path, key: Path, name: str, extension: str, *more: str) -> None:
        openssl(
            *("req", "-x509", *_CURVE, *_DAYS, "-subj", f"/CN={name}", "-addext", extension),
            *("-keyout", str(key), "-out", str(certificate), *more),
        )


def openssl(*arguments: str) -> str:
    """Run the program to its end. Returns: what it printed."""
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
