"""Mistakes in the meaning of requests and answers: conditions, ranges, media types, entries."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/database/validation.py",
        ["tests/web/semantics/test_conditions.py"],
        {
            "the-body-goes-before-the-headers": (
                "wanted if versions is None else versions & wanted",
                "wanted",
            ),
            "a-body-forgets-the-headers-absence": (
                "absent=base.absent or if_absent,",
                "absent=if_absent,",
            ),
            "a-body-forgets-if-match-star": (
                "        exists=base.exists,\n        versions=versions,",
                "        exists=False,\n        versions=versions,",
            ),
            "a-body-forgets-if-none-match": (
                "        not_versions=base.not_versions,\n",
                "        not_versions=None,\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/semantics/conditions.py",
        ["tests/web/semantics/test_conditions.py"],
        {
            "weak-tags-do-not-keep-writes-away": (
                "not_versions=none_match.all if none_match",
                "not_versions=none_match.strong if none_match",
            ),
            "weak-tags-match-strongly": (
                "            if not tag[1]:\n                strong.add(version)",
                "            strong.add(version)",
            ),
            "a-read-matches-weak-tags": ("version not in match.strong", "version not in match.all"),
            "a-read-is-changed-for-weak-tags": (
                "(none_match.any or version in none_match.all)",
                "(none_match.any or version in none_match.strong)",
            ),
            "any-tag-makes-a-read-changed": (
                "(none_match.any or version in none_match.all)",
                "(version in none_match.all)",
            ),
            "if-match-star-wants-nothing": (
                "exists=match is not None and match.any,",
                "exists=False,",
            ),
            "tags-without-commas": (' or (gap.end() < len(text) and "," not in gap[0])', ""),
            "a-weak-if-range": (
                'given.strip(" \\t") == f\'"{version}"\'',
                "f'\"{version}\"' in given",
            ),
            "versions-with-zeros-before": ('"0|[1-9][0-9]{0,18}"', '"[0-9]{1,19}"'),
            "a-list-without-tags": (
                "    if position == len(text):\n        raise",
                "    if False:\n        raise",
            ),
        },
    ),
    **of(
        "tenantbase/web/semantics/ranges.py",
        ["tests/web/semantics/test_ranges.py"],
        {
            "a-suffix-longer-than-all": ("max(0, size - int(match[2]))", "size - int(match[2])"),
            "a-range-without-its-last-byte": (
                "min(int(match[2]) + 1, size)",
                "min(int(match[2]), size)",
            ),
            "a-range-that-ends-before-it-begins": (
                "if match[2] and int(match[2]) < start:",
                "if False:",
            ),
            "a-range-of-one-byte": ("int(match[2]) < start:", "int(match[2]) <= start:"),
            "a-range-behind-the-end": ("if start >= size:", "if start > size:"),
            "an-empty-range": (
                "if match is None or not (match[1] or match[2]):",
                "if match is None:",
            ),
            "the-size-is-not-told": (
                ', {"Content-Range": f"bytes */{size}"}',
                ', {"Content-Range": "bytes */0"}',
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/writer.py",
        ["tests/web/fast_path/test_writer.py", "tests/web/fast_path/test_connection.py"],
        {
            "the-date-stands-still": (
                "if not self._fresh_until - 1 <= now < self._fresh_until:",
                "if not self._fresh_until:",
            ),
            "the-date-does-not-go-back": (
                "if not self._fresh_until - 1 <= now < self._fresh_until:",
                "if now >= self._fresh_until:",
            ),
            "the-date-changes-in-mid-second": (
                "math.floor(now) + 1.0",
                "now + 1.0",
            ),
            "a-drain-keeps-connections": ("if closes or self._lifecycle.draining:", "if closes:"),
            "the-last-fields-outlive-their-batch": (
                '    def _expire(self) -> None:\n        self._current = b""\n',
                "    def _expire(self) -> None:\n        pass\n",
            ),
            "another-entry-of-that-key-will-do": (
                "known is not None and known[0] is lookup",
                "known is not None",
            ),
            "misses-are-remembered": ("lookup.cache_status is CacheStatus.HIT and ", ""),
            "answers-are-remembered-without-end": ("if len(known) >= _KNOWN_ANSWERS:", "if False:"),
            "large-answers-are-remembered": (" and len(body) <= _KNOWN_BODY_BYTES", ""),
            "a-private-answer-is-for-all": (
                "self._known[private].get(key)",
                "self._known[False].get(key)",
            ),
            "a-missing-key-is-no-secret": (
                "_for(private, answer.headers), len(answer.body)",
                "answer.headers, len(answer.body)",
            ),
            "a-write-says-where-it-was-cached": (
                "_for(private, responses.written_headers(entry))",
                "_entry_headers(CacheStatus.MISS, private)(entry)",
            ),
        },
    ),
    **of(
        "tenantbase/entry.py",
        ["tests/test_entry.py"],
        {
            "a-key-too-long-in-bytes": (
                "if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:",
                "if len(key) > MAX_KEY_BYTES:",
            ),
            "a-key-too-long-by-one": (
                "or len(key.encode()) > MAX_KEY_BYTES:",
                "or len(key.encode()) > MAX_KEY_BYTES + 1:",
            ),
            "an-entry-lives-through-its-last-moment": (
                "self.expires_at is None or self.expires_at > now",
                "self.expires_at is None or self.expires_at >= now",
            ),
            "a-ttl-of-zero": (
                "math.isfinite(ttl) and ttl > 0 and",
                "math.isfinite(ttl) and ttl >= 0 and",
            ),
            "a-ttl-beyond-the-calendar": (" and now + ttl <= MAX_TIME)", ")"),
            "a-moment-beyond-the-calendar": (
                "(now < expires_at <= MAX_TIME)",
                "(now < expires_at)",
            ),
            "a-moment-in-the-past": ("(now < expires_at <= MAX_TIME)", "(expires_at <= MAX_TIME)"),
            "ttl-goes-before-expires-at": (
                '        if expires_at is not None:\n            raise InvalidRequest("give',
                '        if False:\n            raise InvalidRequest("give',
            ),
            "json-with-a-suffix-is-none": (' or essence.endswith("+json")', ""),
            "json-in-capitals-is-none": (
                'essence = content_type.partition(";")[0].strip().lower()',
                'essence = content_type.partition(";")[0].strip()',
            ),
            "many-keys-with-a-zero-among-them": (
                'if joined.isascii() and "\\0" not in joined and all(keys):',
                "if joined.isascii() and all(keys):",
            ),
            "many-keys-with-an-empty-one": (
                'and "\\0" not in joined and all(keys):',
                'and "\\0" not in joined:',
            ),
            "many-keys-with-a-long-one": (
                "if max(map(len, keys), default=0) <= MAX_KEY_BYTES:",
                "if True:",
            ),
        },
    ),
    **of(
        "tenantbase/documents.py",
        ["tests/test_documents.py"],
        {
            "expiry-with-a-point": (
                "int(expires_at) if expires_at.is_integer() else expires_at",
                "expires_at",
            ),
            "expiry-cut-to-seconds": (
                "int(expires_at) if expires_at.is_integer() else expires_at",
                "int(expires_at)",
            ),
            "json-of-another-type-is-plain": (
                "document = partial(document, content_type=content_type)",
                "pass",
            ),
            "an-expiry-is-left-out-of-a-list": (
                "if entry.content_type == JSON and entry.expires_at is None\n                else",
                "if entry.content_type == JSON\n                else",
            ),
            "a-list-has-json-of-one-type": (
                "if entry.content_type == JSON and entry.expires_at is None\n                else",
                "if entry.expires_at is None\n                else",
            ),
        },
    ),
    **of(
        "tenantbase/web/responses.py",
        ["tests/web/handlers/test_raw.py::test_active_content_is_an_attachment"],
        {
            "no-nosniff": ("    headers.update([NO_SNIFF])\n    headers[", "    headers["),
            "what-a-browser-runs-is-shown": ("if is_active(entry.content_type):", "if False:"),
        },
    ),
    **of(
        "tenantbase/web/semantics/negotiation.py",
        ["tests/web/handlers/test_lists.py::test_compression_is_negotiated"],
        {
            "deflate-is-refused-with-gzip": (
                'accepted.get(coding, accepted.get("*", 0.0)) > 0',
                'accepted.get("gzip", accepted.get("*", 0.0)) > 0',
            ),
            "a-star-accepts-nothing": ('accepted.get("*", 0.0)', "0.0"),
            "a-weight-of-zero-accepts": (
                'accepted.get(coding, accepted.get("*", 0.0)) > 0',
                'accepted.get(coding, accepted.get("*", -1.0)) >= 0',
            ),
        },
    ),
}
