"""The server's certificates: loaded and checked at startup, reloaded on SIGHUP."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from pathlib import Path
from typing import Final, NoReturn

from tenantbase.errors import ConfigError
from tenantbase.outage import Outage
from tenantbase.pem import read_pem, trust
from tenantbase.process.config import Config
from tenantbase.web.transport.tls import TlsContext

log = logging.getLogger("tenantbase")

_KEY: Final = "PRIVATE KEY-----"
# OpenSSL's reasons; the last two occur if the keys are of different kinds (RSA and EC).
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Certificates:
    """The files of ``--tls-cert``, ``--tls-key`` and ``--tls-client-ca``, loaded.

    Attributes:
        context: the configuration of new connections.

    Raises:
        ConfigError: a file cannot be used. It names the option.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = certificate, key, client_ca
        self._outage = Outage(log, "the certificates were reloaded", level=logging.ERROR)
        self.context = TlsContext(load(certificate, key, client_ca))

    def reload(self) -> bool:
        """Load the files again. If that fails, keep the old configuration and log why.

        Returns: whether it was replaced.
        """
        try:
            self.context.current = load(*self._files)
        except ConfigError as error:
            self._outage.met(
                "the certificates were not reloaded, the old ones stay in use: %s", error
            )
            return False
        self._outage.over()
        log.info("the certificates were reloaded")
        return True

    def reload_on_hangup(self) -> None:
        """Make the running event loop reload on SIGHUP, which has been blocked since the fork."""
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

    Each call makes a new context, which rejects the session tickets of others. So a client cannot
    resume a session to get around a change of the client CA.

    Raises:
        ConfigError: a file cannot be used, or the key is not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With TLS 1.2, a client could demand any number of handshakes on one connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # Decode it without the key first, so that an error names the right file.
    trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "--tls-cert", certificate)
    if _KEY not in read_pem("--tls-key", key):
        raise ConfigError(f"--tls-key: {key} holds no private key in PEM form")

    def passphrase() -> NoReturn:  # OpenSSL would prompt at the terminal, and block
        raise ConfigError(f"--tls-key: {key} is encrypted; give a key without a passphrase")

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            raise ConfigError(
                f"--tls-key: {key} is not the key of the certificate in {certificate}"
            ) from error
        if error.reason in (None, "PEM_LIB"):  # the certificates were decoded above
            raise ConfigError(f"--tls-key: {key} holds no usable private key") from error
        raise ConfigError(
            f"--tls-cert: {certificate} and {key} cannot be used: {_words(error)}"
        ) from error
    except OSError as error:  # the file was replaced in between
        raise ConfigError(f"--tls-cert: {certificate} or {key}: {error.strerror}") from error
    if client_ca is not None:
        trust(context, "--tls-client-ca", client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
