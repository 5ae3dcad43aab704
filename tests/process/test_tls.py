"""A server's certificates: checked at startup, reloaded while it runs, never lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.certificates import Authority, Pair, openssl
from tests.command import command, refused
from tests.process.test_limits import exchange, lowest_free_descriptor
from tests.process.test_worker import WORKERS
from tests.servers import poll

Spoil = Callable[[Authority, Path], tuple[str, ...]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    """A pair in files that a test may replace."""
    given = authority.issue()
    copy = Pair(tmp_path / "server.pem", tmp_path / "server.key", given.serial)
    install(given, copy)
    return copy


def install(source: Pair, target: Pair) -> None:
    target.certificate.write_bytes(source.certificate.read_bytes())
    target.key.write_bytes(source.key.read_bytes())


def connect(server: AppServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def serial(server: AppServer, context: ssl.SSLContext) -> object:
    """The serial number of a new connection's certificate, once a request was answered."""
    with connect(server, context) as connection:
        assert exchange(connection).status in (200, 404)
        certificate = connection.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def serials(server: AppServer, context: ssl.SSLContext) -> set[object]:
    """The serial numbers of enough new connections that each of two workers has accepted some."""
    return {serial(server, context) for _ in range(16)}


def test_curl_is_served(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    with AppServer(tmp_path / "x.db", *pair.options, "--workers", "2") as server:
        assert server.base_url == f"https://127.0.0.1:{server.port}"

        def curl(*arguments: str) -> str:
            done = subprocess.run(
                ["curl", "-sS", "--cacert", str(authority.certificate), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
            return done.stdout

        url = f"https://localhost:{server.port}"
        content = os.urandom(500_000).hex()
        (tmp_path / "value").write_text(content)
        assert json.loads(curl("-T", str(tmp_path / "value"), f"{url}/v1/values/k"))["created"]
        assert curl(f"{url}/v1/values/k") == content
        for version in ("1.2", "1.3"):
            shown = curl(
                "--tlsv" + version, "--tls-max", version, "-w", "%{http_version}", url + "/livez"
            )
            assert shown.endswith("1.1")
        assert curl("-I", f"{url}/health-check").startswith("HTTP/1.1 200 OK")
        assert server.stop() == 0
        assert server.stderr == ""


def test_certificate_from_the_environment(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    variables = {
        "TENANTBASE_TLS_CERT": str(pair.certificate),
        "TENANTBASE_TLS_KEY": str(pair.key),
    }
    with AppServer(tmp_path / "x.db", environment=variables) as server:
        assert serial(server, authority.trusted()) == pair.serial


def _with(index: int, text: str | bytes | None) -> Spoil:
    """Give one of the three files this content, or remove it."""

    def spoil(authority: Authority, directory: Path) -> tuple[str, ...]:
        made = authority.issue()
        files = [made.certificate, made.key, authority.certificate]
        files[index] = directory / "spoilt.pem"
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            files[index].write_bytes(data)
        names = ("--tls-cert", "--tls-key", "--tls-client-ca")
        return tuple(
            part for name, file in zip(names, files, strict=True) for part in (name, str(file))
        )

    return spoil


def _directory(authority: Authority, directory: Path) -> tuple[str, ...]:
    return "--tls-cert", str(directory), "--tls-key", str(authority.issue().key)


def _other_key(authority: Authority, directory: Path) -> tuple[str, ...]:
    one, other = authority.issue(), authority.issue()
    return "--tls-cert", str(one.certificate), "--tls-key", str(other.key)


def _key_of_another_kind(authority: Authority, directory: Path) -> tuple[str, ...]:
    key = directory / "rsa.key"
    openssl("genrsa", "-out", str(key), "2048")
    return "--tls-cert", str(authority.issue().certificate), "--tls-key", str(key)


def _encrypted(authority: Authority, directory: Path) -> tuple[str, ...]:
    made, key = authority.issue(), directory / "encrypted.key"
    openssl("ec", "-in", str(made.key), "-aes128", "-passout", "pass:secret", "-out", str(key))
    return "--tls-cert", str(made.certificate), "--tls-key", str(key)


def _encrypted_pkcs8(authority: Authority, directory: Path) -> tuple[str, ...]:
    made, key = authority.issue(), directory / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", str(made.key), "-passout", "pass:secret", "-out", str(key))
    return "--tls-cert", str(made.certificate), "--tls-key", str(key)


def _swapped(authority: Authority, directory: Path) -> tuple[str, ...]:
    made = authority.issue()
    return "--tls-cert", str(made.key), "--tls-key", str(made.certificate)


def _weak(authority: Authority, directory: Path) -> tuple[str, ...]:
    made = Pair(directory / "weak.pem", directory / "weak.key", "")
    openssl(
        *("req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", str(made.key), "-out", str(made.certificate)),
    )
    return made.options


DAMAGED = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NO_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "spoil, parts",
    [
        (_with(0, None), ("--tls-cert: ", "spoilt.pem cannot be read: No such file or directory")),
        (_with(1, None), ("--tls-key: ", "spoilt.pem cannot be read: No such file or directory")),
        (_with(2, None), ("--tls-client-ca: ", "spoilt.pem cannot be read: No such file")),
        (_with(0, ""), ("--tls-cert: ", "holds no certificate in PEM form")),
        (_with(0, b"\x30\x82\xff\x00"), ("--tls-cert: ", "holds no certificate in PEM form")),
        (_with(1, "hello"), ("--tls-key: ", "holds no private key in PEM form")),
        (_with(2, "hello"), ("--tls-client-ca: ", "holds no certificate in PEM form")),
        (_with(0, DAMAGED), ("--tls-cert: ", "holds a damaged certificate")),
        (_with(1, NO_KEY), ("--tls-key: ", "holds no usable private key")),
        (_with(2, DAMAGED), ("--tls-client-ca: ", "holds a damaged certificate")),
        (_directory, ("--tls-cert: ", "cannot be read: Is a directory")),
        (_other_key, ("--tls-key: ", "is not the key of the certificate in ")),
        (_key_of_another_kind, ("--tls-key: ", "is not the key of the certificate in ")),
        (_encrypted, ("--tls-key: ", "is encrypted; give a key without a passphrase")),
        (_encrypted_pkcs8, ("--tls-key: ", "is encrypted; give a key without a passphrase")),
        (_swapped, ("--tls-cert: ", "holds no certificate in PEM form")),
        (_weak, ("--tls-cert: ", "cannot be used: ee key too small")),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, authority: Authority, spoil: Spoil, parts: tuple[str, ...]
) -> None:
    options = spoil(authority, tmp_path)
    done = command("serve", "--port", "0", "--database", str(tmp_path / "x.db"), *options)
    assert refused(done, *parts, status=2)
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize(
    "given, missing",
    [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert"), ("--tls-client-ca", "--tls-cert")],
)
def test_one_option_without_the_other_is_refused(tmp_path: Path, given: str, missing: str) -> None:
    done = command("serve", "--port", "0", given, str(tmp_path / "x.pem"))
    assert refused(done, f"{given}: needs {missing} as well", status=2)


@pytest.mark.parametrize("workers", WORKERS)
def test_renewed_certificate_is_used_without_losing_a_connection(
    tmp_path: Path, authority: Authority, pair: Pair, workers: tuple[str, ...]
) -> None:
    trusted = authority.trusted()
    with AppServer(tmp_path / "x.db", *pair.options, *workers) as server, ExitStack() as stack:
        before = server.workers
        kept = [stack.enter_context(connect(server, trusted)) for _ in range(8)]
        stop = threading.Event()
        failures: list[Exception] = []
        rounds = []

        def work() -> None:
            while not stop.is_set():
                try:
                    serial(server, trusted)
                    for connection in kept:
                        assert exchange(connection).status == 404
                    rounds.append(1)
                except Exception as error:
                    failures.append(error)
                    return

        def used(renewed: Pair) -> bool:
            return serials(server, trusted) == {renewed.serial}

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(3):
                renewed = authority.issue()
                install(renewed, pair)
                server.signal(signal.SIGHUP)
                poll(partial(used, renewed), "it is used")
        finally:
            stop.set()
            thread.join()
        assert not failures and rounds
        assert server.workers == before
        assert server.stderr == ""
        assert server.stop() == 0


def test_failed_renewal_keeps_the_old_certificate(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    """Even for a worker that starts afterwards."""
    trusted = authority.trusted()
    options = (*pair.options, "--workers", "2")
    with AppServer(tmp_path / "x.db", *options) as server:
        pair.key.write_bytes(authority.issue().key.read_bytes())
        server.signal(signal.SIGHUP)
        poll(lambda: server.stderr != "", "it says so")
        assert serials(server, trusted) == {pair.serial}
        (line,) = server.stderr.splitlines()
        assert (
            '"level": "error"' in line
            and "--tls-key: " in line
            and "the old ones stay in use" in line
        )
        killed = server.workers[0]
        os.kill(killed, signal.SIGKILL)
        poll(lambda: killed not in server.workers and len(server.workers) == 2, "it is replaced")
        time.sleep(0.2)
        assert serials(server, trusted) == {pair.serial}
        renewed = authority.issue()
        install(renewed, pair)
        server.signal(signal.SIGHUP)
        poll(lambda: serials(server, trusted) == {renewed.serial}, "it recovers")
        told = [line for line in server.stderr.splitlines() if '"level": "error"' in line]
        assert sum("--tls-key: " in line for line in told) == 1


class RenewedAtFork(AppServer):
    """A server whose next worker gets a renewed certificate, and a SIGHUP, right after the fork."""

    program = (
        "-c",
        """if True:
        import os, signal, sys
        certificate = sys.argv[sys.argv.index("--tls-cert") + 1]
        key = sys.argv[sys.argv.index("--tls-key") + 1]
        def renew():
            if os.path.exists(certificate + ".new"):
                os.rename(certificate + ".new", certificate)
                os.rename(key + ".new", key)
                os.kill(os.getpid(), signal.SIGHUP)
        os.register_at_fork(after_in_child=renew)
        from tenantbase.main import main
        main()
        """,
    )


def test_hangup_of_a_worker_that_is_starting_is_not_lost(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    trusted = authority.trusted()
    renewed = authority.issue()
    with RenewedAtFork(tmp_path / "x.db", *pair.options) as server:
        install(
            renewed, Pair(Path(f"{pair.certificate}.new"), Path(f"{pair.key}.new"), renewed.serial)
        )
        os.kill(server.workers[0], signal.SIGKILL)

        def used() -> bool:
            try:
                return serial(server, trusted) == renewed.serial
            except OSError:  # there is no worker yet
                return False

        poll(used, "the new worker has read it")


def test_renewed_authority_of_clients(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A client cannot resume an old session to get around the change."""
    other = Authority(tmp_path / "other", "another authority")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.certificate.read_bytes())
    options = (*pair.options, "--tls-client-ca", str(clients))
    with AppServer(tmp_path / "x.db", *options) as server:
        old, new = authority.trusted(authority.issue("old")), authority.trusted(other.issue("new"))

        def admitted(context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
            plain = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            try:
                with context.wrap_socket(
                    plain, server_hostname="localhost", session=session
                ) as connection:
                    return exchange(connection).status == 404
            except (ssl.SSLError, ConnectionError):
                return False

        with connect(server, old) as connection:
            assert exchange(connection).status == 404
            session = connection.session
            assert session is not None and admitted(old, session)
            assert not admitted(new) and not admitted(authority.trusted())
            clients.write_bytes(other.certificate.read_bytes())
            server.signal(signal.SIGHUP)
            poll(lambda: admitted(new), "the new authority is trusted")
            assert not admitted(old) and not admitted(old, session)
            assert exchange(connection).status == 404, "what is connected stays so"


def test_hangup_does_not_shorten_draining(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    trusted = authority.trusted()
    options = (*pair.options, "--drain-delay", "5")
    with AppServer(tmp_path / "x.db", *options) as server:
        server.signal()
        server.signal(signal.SIGHUP)
        assert serial(server, trusted) == pair.serial
        assert server.wait() == 0


def test_server_without_descriptors_serves_and_recovers(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    trusted = authority.trusted()
    with AppServer(tmp_path / "x.db", *pair.options) as server, ExitStack() as stack:
        (worker,) = server.workers
        kept = [stack.enter_context(connect(server, trusted)) for _ in range(4)]
        for each in kept:
            assert exchange(each).status == 404
        limit = lowest_free_descriptor(worker)
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, hard))
        for _ in range(5):
            with pytest.raises(OSError):
                connect(server, trusted).close()
        install(authority.issue(), pair)
        os.kill(worker, signal.SIGHUP)
        poll(
            lambda: "the old ones stay in use" in server.stderr,
            "there is none for the files either",
        )
        for each in kept:
            assert exchange(each).status == 404
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))

        def again() -> bool:
            try:
                return serial(server, trusted) == pair.serial
            except OSError:
                return False

        poll(again, "it accepts again")
        assert server.stderr.count("no more connections can be accepted") == 1
        assert len(server.stderr.splitlines()) == 2


def test_silent_connections_do_not_keep_their_places(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    trusted = authority.trusted()
    options = (*pair.options, "--max-connections", "300", "--keepalive-timeout", "1")
    with AppServer(tmp_path / "x.db", *options) as server, ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), 20)))

        def served() -> bool:
            try:
                return serial(server, trusted) == pair.serial
            except OSError:
                return False

        poll(served, "there is room again")
        assert len(server.stderr.splitlines()) <= 1
