"""The log of every process of the server: one line per record on standard error.

Text for people at a terminal, JSON for programs. Each line is written by one system call, so lines
of several processes do not mix. A line never contains a value or a token, and contains keys only
with ``--log-keys`` (``withheld.py``, ``tracebacks.py``). Control characters are escaped, so no client
can forge a line or control a terminal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from tenantbase.process.log_limiter import Limiter
from tenantbase.process.tracebacks import format_error
from tenantbase.request_context import CURRENT
from tenantbase.withheld import Withheld

log = logging.getLogger("tenantbase")

_STDERR: Final = 2
SUMMARY_SECONDS: Final = 5.0
"""How often a process should call ``summarise``."""
# C0 and C1 controls, and the characters that change the direction of text or break lines.
_UNSAFE: Final = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Output(logging.Handler):
    """Writes records to a descriptor, a few of each kind per minute, and passes them to reporters.

    Args:
        fd: the descriptor.
        as_json: one JSON object per line; otherwise text.
        keys: show keys.
    """

    def __init__(self, fd: int, *, as_json: bool, keys: bool) -> None:
        super().__init__()
        self._fd = fd
        self._keys = keys
        self._format = json_line if as_json else text_line
        self._limiter = Limiter(time.monotonic)
        self.reporters: list[logging.Handler] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless its kind has reached its limit. Called with the lock held."""
        if self._limiter.passes(record):
            self._put(record)
            for reporter in self.reporters:
                if record.levelno >= reporter.level:
                    reporter.handle(record)

    def summarise(self, *, all_of_them: bool = False) -> None:
        """Write how many lines were left out in the periods that have ended."""
        self.acquire()
        try:
            for record in self._limiter.summaries(all_of_them=all_of_them):
                self._put(record)
        finally:
            self.release()

    def due(self) -> float | None:
        """Seconds until ``summarise`` has something to say; None: it has nothing."""
        self.acquire()
        try:
            return self._limiter.due()
        finally:
            self.release()

    def forget(self) -> None:
        """Forget all counts, in a process that was just forked."""
        self._limiter = Limiter(time.monotonic)

    def _put(self, record: logging.LogRecord) -> None:
        try:
            line = self._format(record, self._message(record))
        except Exception as error:  # a faulty log call must neither raise nor vanish
            line = f"a log line of {record.name} could not be made: {type(error).__name__}"
        data = line.encode(errors="backslashreplace") + b"\n"
        with suppress(OSError):  # the reader of the pipe is gone
            while data:
                data = data[os.write(self._fd, data) :]

    def _message(self, record: logging.LogRecord) -> str:
        arguments = record.args
        if self._keys and isinstance(arguments, tuple) and arguments:
            shown = (each.text if isinstance(each, Withheld) else each for each in arguments)
            return str(record.msg) % tuple(shown)
        return record.getMessage()


def json_line(record: logging.LogRecord, message: str) -> str:
    """A record as a JSON object in ASCII."""
    moment = datetime.fromtimestamp(record.created, UTC)
    document: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": message,
        "pid": record.process,
    }
    for name, value in _fields(record).items():
        document.setdefault(name, value)
    if (error := _error(record)) is not None:
        document["exception"] = format_error(error)
    return json.dumps(document, default=str)


def text_line(record: logging.LogRecord, message: str) -> str:
    """A record as text, with local time. Only a traceback takes further lines."""
    moment = datetime.fromtimestamp(record.created).isoformat(" ", timespec="milliseconds")
    fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
    head = f"{moment} {record.process} {record.levelname} {record.name}: {escaped(message)}{fields}"
    error = _error(record)
    if error is None:
        return head
    return "\n".join([head, *map(escaped, format_error(error).split("\n"))])


def escaped(text: str) -> str:
    """Text without control characters: ``\\n`` instead of a line break."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{part}" for name, part in value.items())
    text = escaped(str(value))
    return f'"{text}"' if " " in text else text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The id and trace of the record's request, and the fields given by the log call."""
    fields: dict[str, Any] = {}
    request = getattr(record, "request", None) or CURRENT.get()
    if request is not None:
        fields["request_id"] = request.id
        if request.trace is not None:
            fields["trace_id"] = request.trace.trace_id
            fields["parent_id"] = request.trace.parent_id
    fields.update(getattr(record, "fields", {}))
    return fields


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


_output: Output | None = None


def configure(level: str, *, as_json: bool, keys: bool) -> Output:
    """Send the log of this process, and of those it forks, to standard error.

    Python's warnings and uncaught exceptions go there as well.
    """
    global _output
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    _output = Output(_STDERR, as_json=as_json, keys=keys)
    root.addHandler(_output)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, None)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, None)
    return _output


def add_reporter(handler: logging.Handler) -> None:
    """Pass records to this handler as well, from its level on."""
    if _output is not None:
        _output.reporters.append(handler)


def remove_reporter(handler: logging.Handler) -> None:
    """Stop passing records to this handler, if any were."""
    if _output is not None and handler in _output.reporters:
        _output.reporters.remove(handler)


@contextmanager
def reporter(handler: logging.Handler) -> Iterator[None]:
    """Pass records that are written inside the block to this handler as well, then close it."""
    add_reporter(handler)
    try:
        yield
    finally:
        remove_reporter(handler)
        handler.close()


def last_words(text: str) -> None:
    """Say why the process ends: in the log or, in commands without a log, on standard error."""
    if _output is None:
        print(f"Error: {text}", file=sys.stderr, flush=True)
    else:
        log.critical("%s", text)


def summarise(*, all_of_them: bool = False) -> None:
    """See ``Output.summarise``; at the end of a process, with ``all_of_them``."""
    if _output is not None:
        _output.summarise(all_of_them=all_of_them)


def summary_due() -> float | None:
    """Seconds until ``summarise`` has something to say; None: it has nothing."""
    return None if _output is None else _output.due()


def forget() -> None:
    """Forget all counts, in a process that was just forked."""
    if _output is not None:
        _output.forget()


def log_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log an event loop's errors without its objects, whose ``repr`` may quote a request."""
    loop.set_exception_handler(_loop_error)


def _loop_error(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    error = context.get("exception")
    task = context.get("task") or context.get("future")
    name = f" in {task.get_name()}" if isinstance(task, asyncio.Task) else ""
    # What follows are the arguments of a callback.
    message = str(context.get("message")).partition("(")[0]
    logging.getLogger("asyncio").error("%s", message + name, exc_info=error)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("an exception was not caught", exc_info=error or kind())
