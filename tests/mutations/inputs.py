"""More mistakes in reading input, and in describing it in the OpenAPI document."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/web/semantics/cutting.py",
        [
            "tests/web/fast_path/test_agreement.py::test_what_follows_the_last_request_is_ignored_by_both"
        ],
        {
            "rubbish-after-close-spoils-the-request": (
                "|connection:(?![ ",
                "|connexion:(?![ ",
            ),
            "rubbish-after-an-old-version-spoils-the-request": ("<= HTTP/1\\.0", "<= HTTP/0\\.9"),
        },
    ),
    **of(
        "tenantbase/web/fast_path/framing.py",
        ["tests/web/fast_path/test_plain_heads.py", "tests/web/fast_path/test_framing.py"],
        {
            "a-length-in-capitals-is-none": ("field[1].lower()", "field[1]"),
            "an-old-version-keeps-the-connection": ('HTTP/1\\.1"', 'HTTP/1\\.[01]"'),
            "a-head-of-any-size": (", start + _MAX_HEAD_BYTES)", ")"),
        },
    ),
    **of(
        "tenantbase/web/guard.py",
        ["tests/web/test_guard.py"],
        {
            "an-address-cannot-be-listed": ("if bare in self._allowed_hosts:", "if False:"),
            "a-listed-host-ends-with-a-dot": ('host.removesuffix(".")', "host"),
            "any-port-is-a-port": ("base if port.isascii() and port.isdecimal() else", "base or"),
            "the-schemes-port-makes-a-foreign-host": (
                'host.removesuffix(_DEFAULT_PORTS.get(scheme, ":"))',
                "host",
            ),
        },
    ),
    **of(
        "tenantbase/json_text.py",
        ["tests/test_json_text.py", "tests/test_json_rules.py"],
        {
            "another-value-is-this-one": ("elif is_at(value, text, position):", "elif True:"),
            "a-place-begins-with-a-dot": ('.removeprefix(".")', ""),
            "half-an-escape-is-whole": (
                "            piece = piece[:-1]\n            start -= 1\n",
                "            pass\n",
            ),
            "every-piece-ends-the-text": ("end >= len(text))", "True)"),
        },
    ),
    **of(
        "tenantbase/json_requests.py",
        ["tests/test_json_requests.py"],
        {
            "padding-anywhere": (" and len(value) * 4 != len(piece) * 3:", " and False:"),
            "a-number-is-base64": ("        or bytes(text[:1]) != b'\"'\n", ""),
        },
    ),
    **of(
        "tenantbase/json_requests.py",
        ["tests/offload/test_memory.py"],
        {
            "a-large-part-is-copied": (
                "return memoryview(raw) if len(raw) > _COPIED_BYTES else",
                "return",
            ),
            "base64-is-decoded-at-once": ('        or count(text, b"\\\\")\n', "        or True\n"),
        },
    ),
    **of(
        "tenantbase/process/config.py",
        ["tests/process/test_config.py"],
        {
            "the-environments-url-wins": ('values.pop("url", None)', "pass"),
            "requests-larger-than-the-budget": (
                "config.max_inflight_bytes < config.max_request_bytes",
                "False",
            ),
            "the-budget-does-not-grow": ("max(48 * MIB, 2 * config.max_request_bytes)", "48 * MIB"),
        },
    ),
    **of(
        "tenantbase/process/listening.py",
        ["tests/process/test_listening.py::test_what_other_machines_reach"],
        {
            "only-one-address-is-loopback": (
                "ipaddress.ip_address(address).is_loopback",
                'address == "127.0.0.1"',
            ),
            "only-the-last-address-counts": (
                "exposed = exposed or _exposed(_shown(endpoint), opened)",
                "exposed = _exposed(_shown(endpoint), opened)",
            ),
        },
    ),
    **of(
        "tenantbase/process/unix_socket.py",
        ["tests/process/test_listening.py"],
        {
            "any-file-may-be-stale": ("if not stat.S_ISSOCK(found.st_mode):", "if False:"),
            "a-full-queue-is-another-error": ("in (0, errno.EAGAIN)", "in (0,)"),
            "stale-sockets-stay": ("        os.unlink(path)\n", "        pass\n"),
        },
    ),
    **of(
        "tenantbase/web/transport/listener.py",
        ["tests/process/test_listening.py"],
        {
            "whatever-has-the-path-is-removed": (
                "if self._file == (status.st_dev, status.st_ino):",
                "if True:",
            ),
            "an-inherited-queue-is-emptied": (
                "    if isinstance(sock, InheritedListener):\n        return False\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/process/environment.py",
        ["tests/process/test_config.py"],
        {
            "an-injected-address-may-be-anything": ('variable.endswith("_PORT") and ', ""),
        },
    ),
    **of(
        "tenantbase/process/options.py",
        ["tests/process/test_config.py"],
        {
            "an-empty-name-in-a-list": (
                " for text in stated if text.strip())",
                " for text in stated)",
            ),
        },
    ),
    **of(
        "tenantbase/web/openapi/document.py",
        ["tests/web/test_description.py"],
        {
            "a-head-has-ranges": ('if status != "206"', "if True"),
            "a-field-means-the-same-everywhere": ('if "description" in field:', "if False:"),
            "limits-of-another-server": (
                "{limits.max_value_bytes:,} bytes",
                "{1 << 20:,} bytes",
            ),
            "every-header-comes-always": ('"required": always', '"required": True'),
            "no-problem-can-be-retried": ("if kind.retry else names", "if False else names"),
            "problems-are-those-of-any-request": (", *operation.problems}", "}"),
            "every-body-is-required": ("operation.body_required", "True"),
        },
    ),
    **of(
        "tenantbase/web/responses.py",
        ["tests/web/test_openapi.py::test_the_page"],
        {
            "the-page-may-load-anything": (
                'answer.headers["Content-Security-Policy"] = policy',
                "pass",
            ),
        },
    ),
}
