"""Mistakes in certificates, handshakes and what TLS does to a connection."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TRANSPORT: Final = "tests/web/transport/test_tls.py"


def _process(name: str) -> list[str]:
    # All of them take minutes, because they start servers.
    return [f"tests/process/test_tls.py::{name}"]


MUTATIONS: Final = {
    **of(
        "tenantbase/process/tls.py",
        _process("test_renewed_authority_of_clients"),
        {
            "a-clients-certificate-is-optional": (
                "verify_mode = ssl.CERT_REQUIRED",
                "verify_mode = ssl.CERT_OPTIONAL",
            ),
        },
    ),
    **of(
        "tenantbase/process/tls.py",
        _process("test_failed_renewal_keeps_the_old_certificate"),
        {
            "a-failed-reload-escapes": (
                "        except ConfigError as error:\n            self._outage.met",
                "        except AssertionError as error:\n            self._outage.met",
            ),
        },
    ),
    **of(
        "tenantbase/process/tls.py",
        _process("test_unusable_files_are_refused_in_one_line"),
        {
            "a-passphrase-is-prompted-for": (
                "load_cert_chain(certificate, key, passphrase)",
                "load_cert_chain(certificate, key)",
            ),
        },
    ),
    **of(
        "tenantbase/process/supervisor.py",
        _process("test_renewed_certificate_is_used_without_losing_a_connection"),
        {"workers-keep-the-old-certificate": ("os.kill(worker.pid, signal.SIGHUP)", "pass")},
    ),
    **of(
        "tenantbase/web/transport/tls_transport.py",
        [f"{_TRANSPORT}::test_a_flood_of_key_updates_is_cut"],
        {"new-keys-cost-nothing": ("if self._allowance < 0:", "if False:")},
    ),
    **of(
        "tenantbase/web/transport/tls_transport.py",
        [f"{_TRANSPORT}::test_answer_to_a_slow_reader_is_counted_and_not_encrypted_ahead"],
        {
            "an-answer-is-encrypted-at-once": (
                "while self._pending and self._raw_writable:",
                "while self._pending:",
            ),
            "pending-plaintext-is-not-counted": (
                "return self._pending_bytes + self._raw",
                "return self._raw",
            ),
            "an-answer-is-cut-short-by-close": (
                "        if not self._pending:\n            self._shut()",
                "        self._shut()",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/tls_transport.py",
        [f"{_TRANSPORT}::test_client_without_a_handshake_does_not_keep_its_place"],
        {
            "a-handshake-may-take-for-ever": (
                "call_later(self._seconds, self._too_slow)",
                "call_later(1e6, self._too_slow)",
            )
        },
    ),
    **of(
        "tenantbase/web/guard.py",
        [f"{_TRANSPORT}::test_pages_of_the_same_host_may_write"],
        {"plain-pages-may-write": ("if expected is not None and scheme != expected:", "if False:")},
    ),
    **of(
        "tenantbase/client/exchange.py",
        ["tests/client/test_tls.py::test_server_of_an_unknown_authority_is_not_trusted"],
        {
            "an-untrusted-server-is-asked-again": (
                "            except NotTrusted:  # a retry would get the same certificate\n"
                "                raise\n",
                "",
            ),
        },
    ),
}
