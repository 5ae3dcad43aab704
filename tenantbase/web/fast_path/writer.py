"""The fast path's side of the answer model: an ``Answer`` as the bytes that aiohttp would send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from typing import Final

from aiohttp import hdrs

from tenantbase.commands import Applied
from tenantbase.documents import applied_json, lookup_json
from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.scope import DEFAULT
from tenantbase.waits import DELIVERY
from tenantbase.web import responses
from tenantbase.web.answer import Answer, rendered, rendered_fields, rendered_head
from tenantbase.web.lifecycle import Lifecycle

# Two entries that differ in everything but the type of their values: one to make a template from,
# one to check it with.
_SAMPLE: Final = Entry(DEFAULT.key("k"), b"1", JSON, "0" * 36, 1_234_567_890_123_456_789, None)
_OTHER: Final = Entry(DEFAULT.key("other"), b"22", "text/plain", "f" * 36, 7, 1e9)

_KNOWN_ANSWERS: Final = 8_192
_KNOWN_BODY_BYTES: Final = 1_024
"""Longer bodies are not remembered, so that all remembered answers take some ten MiB at most."""


class ResponseWriter:
    """Renders answers.

    Args:
        varies_by_origin: whether some origins get CORS headers.
    """

    def __init__(self, lifecycle: Lifecycle, *, varies_by_origin: bool = False) -> None:
        self._lifecycle = lifecycle
        self._varies_by_origin = varies_by_origin
        self._fresh_until = 0.0
        self._current = b""  # the last fields, while the answers of one batch are rendered
        self._last_fields = b""
        self._closing_fields = b""
        # Most answers are one of these. Rendering their headers every time would take as long as
        # everything else here.
        self._entry = {
            private: {
                status: head_template(_entry_headers(status, private)) for status in CacheStatus
            }
            for private in (False, True)
        }
        self._written = {
            private: head_template(_written_headers(private)) for private in (False, True)
        }
        self._absent = {
            private: {
                status: _before_and_after(private, responses.absent(status))
                for status in CacheStatus
            }
            for private in (False, True)
        }
        self._deleted = {
            private: _before_and_after(private, responses.deleted()) for private in (False, True)
        }
        self._collection = {
            private: _before_length(200, _for(private, responses.collection(b"").headers))
            for private in (False, True)
        }
        # Answers to hits by key: the lookup, which is the same object as long as memcached returns
        # the same item, the head up to the last fields, and the body.
        self._known: dict[bool, dict[str, tuple[Lookup, bytes, bytes]]] = {False: {}, True: {}}

    def entry(self, key: str, entry: Entry, lookup: Lookup, private: bool = False) -> bytes:
        """What ``responses.entry_answer`` returns for an entry that is not large.

        Args:
            entry: the lookup's.
            private: the answer is for its caller alone.
        """
        known = self._known[private].get(key)
        if known is not None and known[0] is lookup:
            _, head, body = known
        else:
            body = lookup_json(key, lookup)
            head = self._entry[private][lookup.cache_status] % (entry.version, len(body))
            if lookup.cache_status is CacheStatus.HIT and len(body) <= _KNOWN_BODY_BYTES:
                self._remember(private, key, (lookup, head, body))
        return b"".join((head, self._current or self._ending(), b"\r\n", body))

    def written(self, key: str, applied: Applied, private: bool = False) -> bytes:
        """What ``responses.written`` returns; ``private``: for its caller alone."""
        assert applied.entry is not None
        body = applied_json(key, applied)
        head = self._written[private] % (applied.entry.version, len(body))
        return head + (self._current or self._ending()) + b"\r\n" + body

    def absent(self, cache_status: CacheStatus, private: bool = False) -> bytes:
        """What ``responses.absent`` returns; ``private``: for its caller alone."""
        before, after = self._absent[private][cache_status]
        return before + (self._current or self._ending()) + after

    def collection(self, parts: Sequence[bytes], private: bool = False) -> bytes:
        """What ``responses.collection`` returns, not compressed.

        Args:
            parts: of the body.
            private: the answer is for its caller alone.
        """
        length = b"%d\r\n" % sum(map(len, parts))
        ending = self._current or self._ending()
        return b"".join((self._collection[private], length, ending, b"\r\n", *parts))

    def deleted(self, private: bool = False) -> bytes:
        """What ``responses.deleted`` returns; ``private``: for its caller alone."""
        before, after = self._deleted[private]
        return before + self._ending() + after

    def answer(self, answer: Answer) -> bytes:
        """Any answer whose body is bytes."""
        return rendered(answer, self._ending(answer.closes))

    def _ending(self, closes: bool = False) -> bytes:
        """The header fields that come last."""
        DELIVERY.at_end(self._expire)
        now = time.time()
        if not self._fresh_until - 1 <= now < self._fresh_until:  # the clock may be set back
            self._fresh_until = math.floor(now) + 1.0
            date = {hdrs.DATE: formatdate(now, usegmt=True)}
            common = partial(responses.common_headers, varies_by_origin=self._varies_by_origin)
            self._last_fields = rendered_fields(date | common())
            self._closing_fields = rendered_fields(date | common(closes=True))
        if closes or self._lifecycle.draining:
            return self._closing_fields
        self._current = self._last_fields if DELIVERY.timing is not None else b""
        return self._last_fields

    def _expire(self) -> None:
        self._current = b""

    def _remember(self, private: bool, key: str, answer: tuple[Lookup, bytes, bytes]) -> None:
        known = self._known[private]
        if len(known) >= _KNOWN_ANSWERS:
            known.clear()
        known[key] = answer


def head_template(headers_of: Callable[[Entry], dict[str, str]]) -> bytes:
    """A template of the head of a 200 answer up to its last fields, to fill in with the version and the
    size of the body.

    Args:
        headers_of: the headers of the answer for an entry, in which its version appears once.

    Raises:
        ValueError: a header depends on more of the entry than its version.
    """
    head = _before_length(200, headers_of(_SAMPLE))
    version = str(_SAMPLE.version).encode()
    template = head.replace(b"%", b"%%").replace(version, b"%d") + b"%d\r\n"
    expected = rendered_head(200, headers_of(_OTHER), 2)
    try:
        made = template % (_OTHER.version, 2)
    except TypeError:  # the version is missing, or occurs twice
        made = b""
    if made != expected:
        raise ValueError(f"a template must have the version as its only variable: {expected!r}")
    return template


def _before_length(status: int, headers: dict[str, str]) -> bytes:
    """The head of an answer up to the size of its body, which comes before the last fields."""
    return rendered_head(status, headers, 0).removesuffix(b"0\r\n")


def _before_and_after(private: bool, answer: Answer) -> tuple[bytes, bytes]:
    """The bytes of an answer before its last fields, and after them."""
    assert isinstance(answer.body, bytes)
    head = rendered_head(answer.status, _for(private, answer.headers), len(answer.body))
    return head, b"\r\n" + answer.body


def _entry_headers(cache_status: CacheStatus, private: bool) -> Callable[[Entry], dict[str, str]]:
    return lambda entry: _for(private, responses.entry_headers(entry, cache_status, JSON))


def _written_headers(private: bool) -> Callable[[Entry], dict[str, str]]:
    return lambda entry: _for(private, responses.written_headers(entry))


def _for(private: bool, headers: dict[str, str]) -> dict[str, str]:
    if private:
        responses.make_private(headers)
    return headers
