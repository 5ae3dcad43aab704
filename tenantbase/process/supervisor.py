"""Workers, one port: forks them, replaces those that die or hang, and ends with them.

It has no event loop and no threads, so that a fork copies neither. What tells the workers to end
is a pipe of which the supervisor alone holds the other end; the kernel closes that however the
supervisor ends, so no worker outlives it. Each worker in turn holds one end of a pipe of its own, on
which its event loop sends heartbeats. A single worker has a supervisor too: what hangs cannot
replace itself.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from tenantbase.process import worker as service
from tenantbase.process.config import Config
from tenantbase.errors import TenantbaseError
from tenantbase.process.tls import Certificates
from tenantbase.process.wiring import Memcached

log = logging.getLogger("tenantbase.supervisor")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# What a worker says on its pipe; all that follows the last of these is the reason of a failure.
_READY: Final = b"+"
_BEAT: Final = b"."
_FAILED: Final = b"!"
_BEATS: Final = 6  # in the time after which a silent worker is killed
# Before its event loop turns, a worker may wait 10 s for others to open or close the tag file.
_START_SECONDS: Final = 30.0
_SHORT_LIFE: Final = 10.0  # seconds; workers that die younger are replaced ever more slowly
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_GRACE: Final = 5.0  # seconds a worker gets beyond its own deadlines


def run(
    config: Config,
    sockets: Sequence[socket.socket],
    memcached: Memcached | None,
    ready: Callable[[], None],
    certificates: Certificates | None = None,
) -> int:
    """Serve with ``config.workers`` processes until told to end.

    Args:
        sockets: they listen; closed when the end begins.
        ready: called once, when every worker can serve.
        certificates: for TLS; on SIGHUP read again, by every worker as well.

    Returns: the exit status: 0 if every worker ended in order.

    Raises:
        TenantbaseError: a worker could not start; all have ended.
    """
    with closing(_Supervisor(config, sockets, memcached, ready, certificates)) as supervisor:
        return supervisor.run()


@dataclass(slots=True)
class _Worker:
    """A process, and what it has said on its pipe.

    Attributes:
        silent: seconds for which the supervisor has waited for a word of it.
        failure: why it cannot serve, in its own words.
        killed: why it was killed; empty if it was not.
    """

    pid: int
    pipe: int
    born: float
    ready: bool = False
    silent: float = 0.0
    failure: bytes | None = None
    killed: str = ""

    def hear(self, data: bytes) -> None:
        self.silent = 0.0
        if self.failure is None:
            signs, failed, data = data.partition(_FAILED)
            self.ready = self.ready or _READY in signs
            if failed:
                self.failure = b""
        if self.failure is not None:
            self.failure += data


class _Supervisor:
    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        memcached: Memcached | None,
        ready: Callable[[], None],
        certificates: Certificates | None,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._memcached = memcached
        self._ready = ready
        self._certificates = certificates
        self._handled = _SIGNALS if certificates is None else (*_SIGNALS, signal.SIGHUP)
        self._workers: list[_Worker] = []
        self._due: list[float] = []  # when further workers are to be started
        self._pause = _FIRST_PAUSE
        self._announced = False
        self._failure: TenantbaseError | None = None
        self._deadline: float | None = None  # of the end, once it has begun
        self._status = 0
        self._beat = config.watchdog_seconds / _BEATS
        self._turned = time.monotonic()
        self._orders, self._lifeline = os.pipe()
        self._wake, self._wakeup = socket.socketpair()
        self._wake.setblocking(False)
        self._wakeup.setblocking(False)
        self._selector = selectors.PollSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, self._signalled)

    def run(self) -> int:
        # The handlers do nothing: the number of each signal arrives at the other end of this.
        signal.set_wakeup_fd(self._wakeup.fileno())
        for each in self._handled:
            signal.signal(each, lambda *_: None)
        # One alone first: it makes the database, or finds that it cannot be used.
        self._due = [time.monotonic()]
        while self._workers or self._deadline is None:
            self._start_due()
            events = self._selector.select(self._until_next())
            self._count_silence()
            for key, _ in events:
                key.data()
            self._kill_silent()
            if self._workers:
                self._end_overdue()
        if self._failure is not None:
            raise self._failure
        return self._status

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._wakeup.close()
        os.close(self._orders)

    def _until_next(self) -> float | None:
        """Seconds until something is due without any event; None: nothing is."""
        now = time.monotonic()
        waits = [due - now for due in self._due[:1]]
        if self._deadline is not None:
            waits = [self._deadline - now]
        if self._beat:
            waits.append(self._beat)
        return max(min(waits), 0) if waits else None

    def _count_silence(self) -> None:
        # Only time in which the supervisor itself was awake counts: after the machine was suspended,
        # or the processes were stopped together, every heartbeat is late and none is missing.
        now = time.monotonic()
        elapsed = min(now - self._turned, 2 * self._beat)
        self._turned = now
        for worker in self._workers:
            worker.silent += elapsed

    def _kill_silent(self) -> None:
        for worker in self._workers:
            limit = self._config.watchdog_seconds
            if not worker.ready:
                limit = max(limit, _START_SECONDS)
            if self._beat and worker.silent > limit and not worker.killed:
                worker.killed = f"its event loop had not turned for {worker.silent:.1f} s"
                os.kill(worker.pid, signal.SIGKILL)

    def _start_due(self) -> None:
        now = time.monotonic()
        while self._deadline is None and self._due and self._due[0] <= now:
            self._due.pop(0)
            try:
                self._start()
            except OSError as error:
                self._lost(f"a worker cannot be started: {error.strerror}")

    def _start(self) -> None:
        ours, theirs = os.pipe()
        # A signal that arrives in the child before it has its own handlers would be told to us.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(ours)
                self._work(theirs)
        except OSError:
            os.close(ours)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)
            os.close(theirs)
        worker = _Worker(pid, ours, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._heard(worker))

    def _work(self, pipe: int) -> NoReturn:
        """The life of a worker, from fork to exit; nothing of the supervisor's may run in it."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # Ctrl-C reaches every process of the terminal, and the supervisor passes it on.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # SIGHUP stays blocked, and is not lost, until the event loop handles it.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            # A supervisor that is stopped does not read; its worker must not wait for it.
            os.set_blocking(pipe, False)
            os.close(self._lifeline)
            self._wake.close()
            self._wakeup.close()
            self._selector.close()
            for sibling in self._workers:
                os.close(sibling.pipe)
            service.run(
                self._config,
                self._sockets,
                self._memcached,
                self._certificates,
                ready=lambda: _say(pipe, _READY),
                beat=lambda: _say(pipe, _BEAT),
                beat_seconds=self._beat,
                orders=self._orders,
            )
            status = 0
        except TenantbaseError as error:
            # Names of files may hold bytes that are not UTF-8, as lone surrogates.
            _say(pipe, _FAILED + str(error).encode(errors="backslashreplace"))
        except Exception:  # the boundary of the process
            traceback.print_exc()
        finally:  # nothing may unwind into the supervisor's code
            try:
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.flush()
            finally:
                os._exit(status)

    def _heard(self, worker: _Worker) -> None:
        data = os.read(worker.pipe, 65_536)
        if not data:
            self._ended(worker)
            return
        worker.hear(data)
        if self._announced or self._deadline is not None or not worker.ready:
            return
        if missing := self._config.workers - len(self._workers):
            self._due = [time.monotonic()] * missing
        elif all(each.ready for each in self._workers):
            self._announced = True
            self._ready()

    def _ended(self, worker: _Worker) -> None:
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        self._workers.remove(worker)
        _, raw = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(raw)
        how = f"worker {worker.pid} has ended, " + (
            f"killed by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        )
        if worker.killed:
            how = f"worker {worker.pid} was killed: {worker.killed}"
        if self._deadline is not None:
            self._status = self._status or int(code != 0)
            if worker.killed:
                log.error("%s", how)
            return
        if time.monotonic() - worker.born > _SHORT_LIFE:
            self._pause = _FIRST_PAUSE
        self._lost((worker.failure or b"").decode() or how)

    def _lost(self, reason: str) -> None:
        """A worker is missing: start another soon, or give up if there never were enough."""
        if not self._announced:
            self._failure = TenantbaseError(reason)
            self._begin_end()
            return
        log.warning("%s; another follows in %.1f s", reason, self._pause)
        self._due.append(time.monotonic() + self._pause)
        self._due.sort()
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _signalled(self) -> None:
        for number in self._wake.recv(1024):
            if number == signal.SIGHUP:
                self._reload()
                continue
            if self._deadline is not None:
                self._kill()
                os._exit(128 + number)
            self._begin_end()

    def _reload(self) -> None:
        """Read the certificates again, and have the workers do so unless that fails here.

        Workers to come inherit what was read; so one that is replaced after a failed renewal
        still has a certificate.
        """
        if self._certificates is not None and self._certificates.reload():
            for worker in self._workers:
                os.kill(worker.pid, signal.SIGHUP)

    def _begin_end(self) -> None:
        config = self._config
        allowed = config.drain_delay + config.drain_timeout + config.write_timeout + _GRACE
        self._deadline = time.monotonic() + allowed
        for sock in self._sockets:
            sock.close()
        os.close(self._lifeline)

    def _end_overdue(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            log.error("%d workers did not end in time and are killed", len(self._workers))
            self._kill()
            self._deadline += _GRACE

    def _kill(self) -> None:
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGKILL)


def _say(pipe: int, words: bytes) -> None:
    """Tell the supervisor something, unless it is gone or has not listened for ages."""
    with suppress(OSError):
        os.write(pipe, words)
