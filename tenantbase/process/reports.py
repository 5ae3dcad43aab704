"""Reports the supervisor's errors to Sentry, each from a short-lived process of its own.

The library sends from a thread, and the supervisor must not have any: a fork would copy the locks
that the thread holds, but not the thread.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, NoReturn, Self

from tenantbase.process import logs
from tenantbase.process.config import Config
from tenantbase.process.wiring import reporter_of

_MOST_PROCESSES: Final = 4  # further errors meanwhile are only logged
_REAP_SECONDS: Final = 0.2
_ALLOWED_SECONDS: Final = 10  # for importing the library, and for sending
_FIRST_DESCRIPTOR: Final = 3


class Reports(logging.Handler):
    """A log handler for the supervisor. As a context manager, it is connected to the log.

    A record's attribute ``report``, if there is one, is reported in place of its text; a record whose
    ``report`` is empty is not reported.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(logging.ERROR)
        self._config = config
        self._supervisor = os.getpid()
        self._processes: dict[int, float] = {}  # by pid: when it began

    def __enter__(self) -> Self:
        if self._config.sentry_dsn is not None:
            logs.add_reporter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logs.remove_reporter(self)
        while self._processes:
            self.reap()
            time.sleep(_REAP_SECONDS / 10)

    def report(self, name: str, text: str) -> None:
        """Report an error that is not logged. ``name``: the logger's."""
        if self._config.sentry_dsn is not None:
            self.handle(logging.LogRecord(name, logging.ERROR, "", 0, text, None, None))

    def emit(self, record: logging.LogRecord) -> None:
        """Have a new process report the record."""
        text = getattr(record, "report", record.msg)
        if not text or len(self._processes) >= _MOST_PROCESSES:
            return
        with suppress(OSError):  # there is no room for another process
            pid = os.fork()
            if pid == 0:
                self._send(record, text)
            self._processes[pid] = time.monotonic()

    def leave(self) -> None:
        """In a worker that was just forked: it reports for itself, and has none of these processes."""
        logs.remove_reporter(self)
        self._processes.clear()

    def due(self) -> float | None:
        """Seconds until ``reap`` should be called; None: no process runs."""
        return _REAP_SECONDS if self._processes else None

    def reap(self) -> None:
        """Take note of processes that have ended, and end those that take too long."""
        for pid, began in list(self._processes.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._processes[pid]
            elif time.monotonic() - began > _ALLOWED_SECONDS:
                os.kill(pid, signal.SIGKILL)

    def _send(self, record: logging.LogRecord, text: str) -> NoReturn:
        """The child, from fork to exit. It must never return into the supervisor's code."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the supervisor ends it if need be
            # Close what was inherited, above all the shutdown pipe: until it is closed, the workers go
            # on.
            os.closerange(_FIRST_DESCRIPTOR, os.sysconf("SC_OPEN_MAX"))
            if text != record.msg:
                record.msg, record.args = text, None
            # If SENTRY_DSN is wrong, the workers say so.
            with suppress(ImportError, ValueError):
                reporter = reporter_of(self._config)
                reporter.emit(record)
                reporter.close()
        finally:
            os._exit(0)
