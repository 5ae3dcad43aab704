"""Errors in the log, reported to Sentry. The only importer of ``sentry_sdk``.

A report is built only from what is known to be harmless: where the error arose, its type, and its
text if that cannot quote a request. Whatever a later version of the library adds stays out. No key,
value, token, header or local variable is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import sentry_sdk
from sentry_sdk.integrations.logging import EventHandler
from sentry_sdk.types import Event, Hint

from tenantbase.request_context import CURRENT

_FLUSH_SECONDS: Final = 2.0
_KEPT: Final = (
    *("event_id", "timestamp", "level", "logger", "platform", "release", "environment"),
    *("server_name", "sdk"),
)
_KEPT_OF_FRAME: Final = (
    *("filename", "abs_path", "function", "module", "lineno", "in_app"),
    *("pre_context", "context_line", "post_context"),
)


class Reporter(logging.Handler):
    """A log handler that reports errors.

    Args:
        dsn: where to report them.
        release: the version of this program.
        summary: returns an exception's type and harmless text.

    Raises:
        ValueError: the DSN is invalid.
    """

    def __init__(self, dsn: str, release: str, summary: Callable[[BaseException], str]) -> None:
        super().__init__(logging.ERROR)
        self._summary = summary
        self._events = EventHandler()
        sentry_sdk.init(
            dsn=dsn,
            release=release,
            default_integrations=False,  # they hook into the interpreter, and add what they find
            auto_enabling_integrations=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=self._scrub,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a report, which a thread of the library sends."""
        self._events.emit(record)

    def close(self) -> None:
        """Send what is left."""
        sentry_sdk.flush(_FLUSH_SECONDS)
        super().close()

    def _scrub(self, event: Event, hint: Hint) -> Event | None:
        record = hint.get("log_record")
        if record is None:
            return None  # not from our log
        given: dict[str, Any] = dict(event)
        kept: Any = {name: given[name] for name in _KEPT if name in given}
        kept["logentry"] = {"message": str(record.msg)}  # without its arguments
        request = getattr(record, "request", None) or CURRENT.get()
        if request is not None:
            kept["tags"] = {"request_id": request.id}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            texts = {type(each).__name__: self._summary(each) for each in _chain(error)}
            values = given.get("exception", {}).get("values", [])
            kept["exception"] = {"values": [_exception(each, texts) for each in values]}
        scrubbed: Event = kept
        return scrubbed


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _exception(value: dict[str, Any], texts: dict[str, str]) -> dict[str, Any]:
    name = value.get("type")
    scrubbed: dict[str, Any] = {"type": name, "value": texts.get(str(name), "")}
    frames = (value.get("stacktrace") or {}).get("frames", [])
    scrubbed["stacktrace"] = {
        "frames": [{key: frame[key] for key in _KEPT_OF_FRAME if key in frame} for frame in frames]
    }
    return scrubbed
