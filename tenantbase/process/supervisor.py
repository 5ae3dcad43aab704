"""Forks the workers, replaces those that die or hang (the watchdog), and shuts them down.

The supervisor has no event loop and no threads, so that a fork copies neither. It holds the only
write end of the shutdown pipe. However the supervisor ends, the kernel closes that end, which tells
the workers to shut down, so that none outlives it. Each worker sends heartbeats from its event loop
on a pipe of its own. A single worker has a supervisor too: a process that hangs cannot replace
itself.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final, NoReturn

from tenantbase.auth.rates import Rates
from tenantbase.errors import TenantbaseError
from tenantbase.metrics.board import Board
from tenantbase.process import logs
from tenantbase.process import worker as worker_process
from tenantbase.process.child import BEAT, FAILED, READY, Ending, Worker, ending
from tenantbase.process.config import Config
from tenantbase.process.listening import Listening
from tenantbase.process.notifier import Notifier
from tenantbase.process.reports import Reports
from tenantbase.process.tls import Certificates
from tenantbase.process.wiring import Memcached
from tenantbase.web.app import REQUEST_CELLS

log = logging.getLogger("tenantbase.supervisor")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_BEATS_PER_TIMEOUT: Final = 6  # heartbeats within --watchdog-seconds
# Before its event loop runs, a worker may wait 10 s for others to open or close the tag file.
_STARTUP_SECONDS: Final = 30.0
_SHORT_LIFE_SECONDS: Final = 10.0  # the pause doubles if a worker dies sooner than this
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 10.0
_SHUTDOWN_GRACE_SECONDS: Final = 5.0  # added to a worker's own timeouts


def run(
    config: Config,
    listening: Listening,
    memcached: Memcached | None,
    ready: Callable[[], None],
    certificates: Certificates | None = None,
) -> int:
    """Run ``config.workers`` workers until SIGTERM or SIGINT. A second signal kills them.

    Args:
        listening: its sockets are closed when the shutdown begins.
        ready: called once, when every worker accepts requests.
        certificates: for TLS. SIGHUP reloads them here and in every worker.

    Returns: the exit status, 0 if every worker shut down gracefully.

    Raises:
        TenantbaseError: a worker could not start. All have exited.
    """
    with (
        Reports(config) as reports,
        closing(
            _Supervisor(config, listening, memcached, ready, certificates, reports)
        ) as supervisor,
    ):
        return supervisor.run()


class _Supervisor:
    def __init__(
        self,
        config: Config,
        listening: Listening,
        memcached: Memcached | None,
        ready: Callable[[], None],
        certificates: Certificates | None,
        reports: Reports,
    ) -> None:
        self._config = config
        self._reports = reports
        self._listening = listening
        self._memcached = memcached
        self._ready = ready
        self._certificates = certificates
        self._notifier = Notifier(config.manager)
        reloads = certificates is not None or self._notifier
        self._handled = (*_SIGNALS, signal.SIGHUP) if reloads else _SIGNALS
        self._rates = Rates()  # shared by all workers
        self._board = Board(config.workers, REQUEST_CELLS.end)
        self._workers: list[Worker] = []
        self._starts_at: list[float] = []  # when to start further workers, in order
        self._pause = _FIRST_PAUSE_SECONDS
        self._announced = False
        self._failure: TenantbaseError | None = None
        self._deadline: float | None = None  # the deadline of the shutdown, once it has begun
        self._status = 0
        timeouts = config.watchdog_seconds, config.manager.watchdog_seconds
        self._beat_seconds = min(filter(None, timeouts), default=0.0) / _BEATS_PER_TIMEOUT
        self._last_turn = time.monotonic()
        self._told_alive = -math.inf  # when the service manager was last sent a heartbeat
        # Closing the write end tells the workers to shut down.
        self._shutdown_pipe, self._shutdown_writer = os.pipe()
        self._signals, self._signal_writer = socket.socketpair()
        self._signals.setblocking(False)
        self._signal_writer.setblocking(False)
        self._selector = selectors.PollSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._signalled)
        if memcached is not None and (pipe := memcached.messages) is not None:
            self._selector.register(pipe, selectors.EVENT_READ, lambda: self._hear(memcached, pipe))

    def run(self) -> int:
        # The handlers do nothing: Python writes each signal's number to the socket.
        signal.set_wakeup_fd(self._signal_writer.fileno())
        for each in self._handled:
            signal.signal(each, lambda *_: None)
        # Start the first worker alone: it creates the database, or finds that it cannot be used.
        self._starts_at = [time.monotonic()]
        while self._workers or self._deadline is None:
            self._start_due()
            events = self._selector.select(self._seconds_until_next())
            self._count_silence()
            for key, _ in events:
                key.data()
            self._kill_silent()
            self._notify()
            if self._workers:
                self._kill_overdue()
            logs.summarise()
            self._reports.reap()
        if self._failure is not None:
            raise self._failure
        return self._status

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        logs.summarise(all_of_them=True)
        self._selector.close()
        self._signals.close()
        self._signal_writer.close()
        self._notifier.close()
        os.close(self._shutdown_pipe)

    def _seconds_until_next(self) -> float | None:
        """How long to wait for events at most; None means forever."""
        now = time.monotonic()
        waits = [start - now for start in self._starts_at[:1]]
        if self._deadline is not None:
            waits = [self._deadline - now]
        if self._beat_seconds:
            waits.append(self._beat_seconds)
        waits += [due for due in (logs.summary_due(), self._reports.due()) if due is not None]
        return max(min(waits), 0) if waits else None

    def _count_silence(self) -> None:
        # Count only time in which the supervisor itself was awake. After the machine was suspended,
        # or the processes were stopped together, every heartbeat is late but none is missing.
        now = time.monotonic()
        elapsed = min(now - self._last_turn, 2 * self._beat_seconds)
        self._last_turn = now
        for worker in self._workers:
            worker.silent += elapsed

    def _kill_silent(self) -> None:
        for worker in self._workers:
            limit = self._config.watchdog_seconds
            if not worker.ready:
                limit = max(limit, _STARTUP_SECONDS)
            if self._config.watchdog_seconds and worker.silent > limit and not worker.killed:
                worker.killed = f"its event loop was blocked for {worker.silent:.1f} s"
                os.kill(worker.pid, signal.SIGKILL)

    def _notify(self) -> None:
        """Tell the service manager how many workers serve, and that the service is alive.

        It is alive while at least one worker sends heartbeats. The manager can only restart the whole
        service, so it is not told of single workers, which are replaced here.
        """
        if self._announced and self._deadline is None:
            serving = sum(worker.ready for worker in self._workers)
            self._notifier.status(f"{serving} of {self._config.workers} workers serve")
        half = self._config.manager.watchdog_seconds / 2
        alive = any(worker.ready and worker.silent < half for worker in self._workers)
        if alive and self._last_turn - self._told_alive >= self._beat_seconds:
            self._told_alive = self._last_turn
            self._notifier.alive()

    def _start_due(self) -> None:
        now = time.monotonic()
        while self._deadline is None and self._starts_at and self._starts_at[0] <= now:
            self._starts_at.pop(0)
            try:
                self._start()
            except OSError as error:
                reason = f"cannot start a worker: {error.strerror}"
                self._replace(Ending(reason, reason))

    def _start(self) -> None:
        ours, theirs = os.pipe()
        slot = self._board.take()
        # A signal that reached the child before it has its own handlers would be reported to us.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(ours)
                self._run_worker(theirs, slot)
        except OSError:
            os.close(ours)
            self._board.give_back(slot)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)
            os.close(theirs)
        worker = Worker(pid, ours, slot, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._receive(worker))

    def _run_worker(self, pipe: int, slot: int) -> NoReturn:
        """The child, from fork to exit. It must never return into the supervisor's code."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # Ctrl-C reaches every process of the terminal, and the supervisor passes it on.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # SIGHUP stays blocked, and is not lost, until the event loop handles it.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            # A stopped supervisor does not read, and its workers must not block on it.
            os.set_blocking(pipe, False)
            logs.forget()
            self._reports.leave()
            os.close(self._shutdown_writer)
            self._signals.close()
            self._signal_writer.close()
            self._selector.close()
            for sibling in self._workers:
                os.close(sibling.pipe)
            worker_process.run(
                self._config,
                self._listening,
                self._memcached,
                self._certificates,
                ready=lambda: _report(pipe, READY),
                beat=lambda: _report(pipe, BEAT),
                beat_seconds=self._beat_seconds,
                shutdown_pipe=self._shutdown_pipe,
                rates=self._rates,
                figures=(self._board, slot),
                refuse_open=not self._announced,  # later, a running server refuses requests instead
            )
            status = 0
        except TenantbaseError as error:
            # A file name that is not UTF-8 holds lone surrogates.
            _report(pipe, FAILED + str(error).encode(errors="backslashreplace"))
        except Exception:  # the outermost handler of the process
            log.exception("the worker has failed")
        finally:  # the exception must not unwind into the supervisor's code
            try:
                logs.summarise(all_of_them=True)
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
            finally:
                os._exit(status)

    def _receive(self, worker: Worker) -> None:
        data = os.read(worker.pipe, 65_536)
        if not data:
            self._reap(worker)
            return
        worker.receive(data)
        if self._announced or self._deadline is not None or not worker.ready:
            return
        if missing := self._config.workers - len(self._workers):
            self._starts_at = [time.monotonic()] * missing
        elif all(each.ready for each in self._workers):
            self._announced = True
            self._ready()
            self._notifier.ready()

    def _reap(self, worker: Worker) -> None:
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        self._workers.remove(worker)
        _, raw, usage = os.wait4(worker.pid, 0)
        cpu = usage.ru_utime + usage.ru_stime
        self._board.give_back(worker.slot, cpu, restarts=self._announced and self._deadline is None)
        ended = ending(worker, raw)
        if self._deadline is not None:
            self._status = self._status or int(raw != 0)
            if worker.killed:
                log.error("%s", ended.text, extra={"report": ended.report})
            return
        if time.monotonic() - worker.born > _SHORT_LIFE_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._replace(ended)

    def _replace(self, ended: Ending) -> None:
        """Schedule a worker to replace a missing one; give up if the workers never all started."""
        if not self._announced:
            self._failure = TenantbaseError(ended.text)
            self._reports.report(log.name, ended.report)
            self._begin_shutdown()
            return
        # Workers that die in quick succession are one trouble, which is reported once.
        report = ended.report if self._pause == _FIRST_PAUSE_SECONDS else ""
        log.error(
            "%s; starting another in %.1f s", ended.text, self._pause, extra={"report": report}
        )
        self._starts_at.append(time.monotonic() + self._pause)
        self._starts_at.sort()
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _hear(self, memcached: Memcached, pipe: int) -> None:
        if not memcached.log_messages():
            self._selector.unregister(pipe)

    def _signalled(self) -> None:
        for number in self._signals.recv(1024):
            if number == signal.SIGHUP:
                self._reload()
                continue
            if self._deadline is not None:
                self._kill_all()
                os._exit(128 + number)
            self._begin_shutdown()

    def _reload(self) -> None:
        """Reload the certificates and, unless that fails, tell the workers to do the same.

        Workers started later inherit what was loaded here, so a worker that is replaced after a
        failed reload still has a certificate.
        """
        self._notifier.reloading()
        if self._certificates is not None and self._certificates.reload():
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGHUP)
        self._notifier.ready()

    def _begin_shutdown(self) -> None:
        config = self._config
        timeouts = config.drain_delay + config.drain_timeout + config.write_timeout
        self._deadline = time.monotonic() + timeouts + _SHUTDOWN_GRACE_SECONDS
        self._notifier.stopping()
        for sock in self._listening.sockets:
            sock.close()
        os.close(self._shutdown_writer)

    def _kill_overdue(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            log.error("killing %d workers that did not exit in time", len(self._workers))
            self._kill_all()
            self._deadline += _SHUTDOWN_GRACE_SECONDS

    def _kill_all(self) -> None:
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGKILL)


def _report(pipe: int, message: bytes) -> None:
    """Send the supervisor a message, unless it is gone or the pipe is full."""
    with suppress(OSError):
        os.write(pipe, message)
