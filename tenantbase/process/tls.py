"""The server's certificates: read and checked at the start, and again on SIGHUP."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from pathlib import Path
from typing import Final, NoReturn

from tenantbase.errors import ConfigError
from tenantbase.pem import read_pem, trust
from tenantbase.process.config import Config
from tenantbase.web.transport.tls import TlsContext

log = logging.getLogger("tenantbase")

_KEY: Final = "PRIVATE KEY-----"
# OpenSSL's reasons: the last two, when the keys are of different kinds (RSA and EC).
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Certificates:
    """What ``--tls-cert``, ``--tls-key`` and ``--tls-client-ca`` name.

    Attributes:
        context: what new connections begin with.

    Raises:
        ConfigError: they cannot be used; names the option to blame.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = certificate, key, client_ca
        self.context = TlsContext(load(certificate, key, client_ca))

    def reload(self) -> bool:
        """Read the files again. If they cannot be used, the old ones stay and the log says why.

        Returns: whether they were replaced.
        """
        try:
            self.context.current = load(*self._files)
        except ConfigError as error:
            log.error("the certificate is not replaced, the old one stays in use: %s", error)
            return False
        log.info("the certificate was read again")
        return True

    def reload_on_hangup(self) -> None:
        """Let SIGHUP, blocked since the fork, mean to the running event loop: read them again."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))


def certificates_of(config: Config) -> Certificates | None:
    """The certificates that the options name; None: the server speaks plain HTTP.

    Raises:
        ConfigError: they cannot be used.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)


def load(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """A server's TLS configuration: TLS 1.2 or newer, HTTP/1.1 by ALPN.

    Always a new context: its session tickets are worth nothing to another, so a client cannot
    resume a session past a client CA that is no longer trusted.

    Raises:
        ConfigError: a file cannot be read or used, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 lets a client demand one handshake after the other on its connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # Decoded apart from the key, so that the error names the one to blame.
    trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "--tls-cert", certificate)
    if _KEY not in read_pem("--tls-key", key):
        raise ConfigError(f"--tls-key: {key} holds no private key in PEM form")

    def passphrase() -> NoReturn:  # OpenSSL would ask for it at the terminal, and wait
        raise ConfigError(f"--tls-key: {key} is encrypted; a key without passphrase is wanted")

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            raise ConfigError(
                f"--tls-key: {key} is not the key of the certificate in {certificate}"
            ) from error
        if error.reason in (None, "PEM_LIB"):  # the certificates have been decoded already
            raise ConfigError(f"--tls-key: {key} holds no usable private key") from error
        raise ConfigError(
            f"--tls-cert: {certificate} and {key} cannot be used: {_words(error)}"
        ) from error
    except OSError as error:  # replaced since it was read
        raise ConfigError(f"--tls-cert: {certificate} or {key}: {error.strerror}") from error
    if client_ca is not None:
        trust(context, "--tls-client-ca", client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
