"""Mistakes in parsing input: JSON, heads of requests, targets, options."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/json_text.py",
        ["tests/test_json_text.py", "tests/test_json_rules.py"],
        {
            "one-level-too-deep": ("and _depth(text) > MAX_DEPTH:", "and _depth(text) > 513:"),
            "brackets-in-strings-are-levels": (
                ".split(b'\"')\n",
                ".split(b'\\0')\n",
            ),
            "a-string-ends-with-its-piece": (
                "        in_string ^= (len(parts) - 1) & 1\n",
                "        in_string = 0\n",
            ),
            "a-piece-begins-at-depth-zero": ("            depth += sum(steps)\n", ""),
            "escaped-names-differ": ('if "\\\\" in name:', "if False:"),
            "a-colon-in-any-text-is-a-second-name": (
                'if count(text, b":") > 1:',
                'if count(text, b":") > 2:',
            ),
            "a-pair-of-surrogates-is-two-lone-ones": (
                '_PAIR.sub(b"", text.replace(b"\\\\\\\\", b""))',
                'text.replace(b"\\\\\\\\", b"")',
            ),
            "an-escaped-backslash-begins-a-surrogate": (
                '_PAIR.sub(b"", text.replace(b"\\\\\\\\", b""))',
                '_PAIR.sub(b"", text)',
            ),
            "an-error-repeats-any-name": ("if len(name) > _EXCERPT_CHARACTERS:", "if False:"),
            "raw-json-may-be-anything-but-utf-8": (
                "    check_utf8(text, field)\n    try:\n        _RAW",
                "    try:\n        _RAW",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/framing.py",
        ["tests/web/fast_path/test_framing.py"],
        {
            "two-lengths": ("if length is not None or not", "if not"),
            "a-coding-has-a-length": (
                'if name == b"transfer-encoding" or (',
                "if (",
            ),
            "requests-follow-an-upgrade": (
                ' and value.lower() not in (b"keep-alive", b"close")',
                " and False",
            ),
            "a-length-with-a-sign": ('rb"[0-9]{1,15}"', 'rb"[+]?[0-9]{1,15}"'),
            "blanks-before-the-colon": ("{1,256}):(", "{1,256}) ?:("),
            "a-frame-of-another-request": (
                "line, *fields = data[start:end]",
                "line, *fields = data[:end]",
            ),
        },
    ),
    **of(
        "tenantbase/media_types.py",
        [
            "tests/web/handlers/test_raw.py::test_active_content_is_an_attachment",
            "tests/web/handlers/test_raw.py::test_put",
        ],
        {
            "svg-is-harmless": ('essence.endswith("+xml") or ', ""),
            "scripts-are-harmless": (' or "script" in essence', ""),
            "html-with-parameters-is-harmless": (
                'content_type.partition(";")[0].strip().lower()',
                "content_type.strip().lower()",
            ),
            "html-in-capitals-is-harmless": ("[0].strip().lower()", "[0].strip()"),
            "a-media-type-of-any-length": ("len(text) > _LONGEST or ", ""),
        },
    ),
    **of(
        "tenantbase/web/semantics/targets.py",
        [
            "tests/web/handlers/test_values.py::test_get",
            "tests/web/handlers/test_raw.py::test_get",
        ],
        {
            "parameters-repeat": ("        if name in parameters:\n", "        if False:\n"),
            "a-fragment-is-cut-off": ('    if "#" in target:\n', "    if False:\n"),
            "a-plus-is-a-plus": (
                '_decode(raw_value.replace("+", " "), name)',
                "_decode(raw_value, name)",
            ),
            "broken-escapes-are-texts": ("if _BROKEN_ESCAPE.search(text):", "if False:"),
        },
    ),
    **of(
        "tenantbase/web/guard.py",
        ["tests/web/test_guard.py"],
        {
            "listed-hosts-are-for-loopback": (
                "settings.loopback or bool(settings.allowed_hosts)",
                "settings.loopback",
            ),
            "the-absolute-form-is-not-looked-at": (
                'if not target.startswith("/") and "://" in target:',
                "if False:",
            ),
            "a-cross-site-form-writes": (
                'if headers.get("Sec-Fetch-Site", "").lower() == "cross-site":',
                "if False:",
            ),
            "an-origin-with-a-star": (' or "*" in origin:', ":"),
            "an-empty-authority-is-its-own": ("return bool(authority) and", "return"),
            "hosts-in-capitals": ("host = host.strip().lower()", "host = host.strip()"),
            "a-refusal-repeats-any-header": ("len(text) <= _EXCERPT_CHARACTERS", "True"),
        },
    ),
    **of(
        "tenantbase/process/option_types.py",
        ["tests/process/test_config.py"],
        {
            "memory-is-a-file": ('(":memory:", "file:")', '("file:",)'),
            "the-schemes-port-stays": (
                '"" if int(digits) == _DEFAULT_PORTS[scheme] else ',
                "",
            ),
            "ports-of-any-size": ("if int(digits) > 65535:", "if False:"),
            "a-size-of-one-too-many": ("if not lowest <= count <= highest:", "if count < lowest:"),
            "endless-seconds": (
                "not math.isfinite(count) or not (0 < count <= highest or zero and count == 0)",
                "count > highest or count < 0 or not (zero or count)",
            ),
            "a-megabyte-is-a-mebibyte": ('"mb": 10**6', '"mb": MIB'),
        },
    ),
}
