"""A private memcached, on a Unix socket that no other user can open: `--memcached auto`.

A small shell process, the guard, runs memcached and restarts it when it dies. When the service
ends, the guard stops memcached and removes its directory. The service may be killed before it can
tell the guard, so the guard reads from a pipe, the lifeline. The service holds the only write end,
and the kernel closes that when the service ends in any way.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from contextlib import suppress

from tenantbase.interfaces.memcached.address import LONGEST_PATH, MemcacheAddress

log = logging.getLogger("tenantbase.memcache")

# Where Homebrew, a source build or a package may install it, though a service's PATH may lack
# these.
_MORE_PLACES = "/usr/local/bin:/opt/homebrew/bin:/usr/sbin"

# One thread answers more keys per second than several workers request. With a second one, requests
# do not wait while large values are copied for another connection.
_THREADS = "2"

# How many commands it answers before it turns to other connections, and sends the answers. Its default,
# 20, is meant for many clients, and would cut a batch of reads into several answers.
_COMMANDS_AT_ONCE = "1000"

_READY_SECONDS = 0.5
_STOP_SECONDS = 5.0
_MEBIBYTE = 1 << 20
_MESSAGES_BYTES = 1 << 16

# "$!" is the last process started: memcached or, after its death, the pause. The shell runs traps
# between commands, so never between the start of memcached and the setting of "$!".
# Signals go to the whole process group ("0"): the pid of a dead process could belong to another
# program by now. The reader's second KILL is needed if the guard itself was killed. A memcached
# that ends before it has made its socket would do so again, so the guard ends, too.
_GUARD = """
directory=$1 socket=$2
shift 2
exec 3<&0 </dev/null >/dev/null
end() {
    kill -KILL "$!"
    wait "$!"
    rm -rf "$directory"
    kill -KILL 0
} 2>/dev/null
trap '' HUP
trap end INT TERM
(
    trap '' HUP INT TERM
    while read -r _; do :; done
    kill -TERM 0
    sleep 1
    rm -rf "$directory"
    kill -KILL 0
) <&3 2>/dev/null &
exec 3<&-
while :; do
    "$@" &
    wait "$!" 2>/dev/null
    [ -S "$socket" ] || end
    sleep 1 &
    wait "$!"
done
"""


class PrivateMemcached:
    """A running memcached, supervised, that ends with this process. See `start`.

    A process forked from this one neither stops it nor keeps it alive.
    """

    def __init__(
        self,
        guard: subprocess.Popen[bytes],
        lifeline: int,
        messages: int,
        path: str,
        max_item_bytes: int,
    ) -> None:
        self._guard = guard
        self.messages = messages
        """The read end of a pipe: the standard error of memcached and the guard."""
        self._lifeline: int | None = lifeline
        self._directory = os.path.dirname(path)
        self.address = MemcacheAddress(path=path)
        self.max_item_bytes = max_item_bytes
        """The largest item memcached takes, including its own overhead of about 100 bytes."""
        _started.add(self)

    @classmethod
    def start(
        cls,
        memory_megabytes: int = 64,
        max_item_bytes: int = 2 * _MEBIBYTE,
        program: str = "memcached",
    ) -> PrivateMemcached | None:
        """Start memcached in a new directory of mode 0700 and wait briefly until it answers.

        Args:
            memory_megabytes: for items; at least 2.
            max_item_bytes: rounded up to whole MiB; at most half of the memory.
            program: a path, or a name to be looked up.

        Returns: None if that is not possible; one line in the log says why.
        """
        found = shutil.which(program) or shutil.which(program, path=_MORE_PLACES)
        if found is None:
            log.warning("no cache: the program %s is not installed", program)
            return None
        # memcached requires both: a multiple of its chunks, and at most half of the memory.
        item_megabytes = min(-(-max_item_bytes // _MEBIBYTE), memory_megabytes // 2)
        options = ["-U", "0", "-a", "0600", "-t", _THREADS, "-R", _COMMANDS_AT_ONCE]
        options += ["-m", str(memory_megabytes), "-I", f"{item_megabytes}m"]
        if os.geteuid() == 0:
            # memcached refuses to run as root unless told to.
            options += ["-u", pwd.getpwuid(0).pw_name]
        try:
            directory = _make_directory()
        except OSError as error:
            log.warning("no cache: no directory for the socket of memcached: %s", error)
            return None
        path = os.path.join(directory, "memcached")
        command = [os.path.abspath(found), "-s", path, *options]
        theirs, ours = os.pipe()
        messages, their_messages = os.pipe()
        for fd in (messages, their_messages):  # memcached must not block on a slow reader
            os.set_blocking(fd, False)
        try:
            # In its own session: Ctrl-C at the terminal is for the service, which drains first.
            guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "tenantbase-memcached-guard", directory, path, *command],
                stdin=theirs,
                stderr=their_messages,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            os.close(messages)
            os.rmdir(directory)
            log.warning("no cache: the shell that guards memcached cannot be started: %s", error)
            return None
        finally:
            os.close(theirs)
            os.close(their_messages)
        memcached = cls(guard, ours, messages, path, item_megabytes * _MEBIBYTE)
        if not memcached._await_ready():
            said = ""
            with suppress(BlockingIOError):
                said = " ".join(memcached._said().split())
            memcached.stop()
            log.warning(
                "no cache: %s does not start: %s", " ".join(command), said or "it says nothing"
            )
            return None
        return memcached

    def __enter__(self) -> PrivateMemcached:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop memcached and remove its directory. Takes milliseconds, at most seconds."""
        if self._lifeline is None:
            return
        os.close(self._lifeline)
        self._lifeline = None
        try:
            self._guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
        self.log_messages()
        os.close(self.messages)
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_messages(self) -> bool:
        """Log the messages since the last call. Returns: False if no more can come."""
        try:
            said = self._said()
        except BlockingIOError:
            return True
        for line in said.splitlines():
            log.warning("memcached says: %s", line)
        return bool(said)

    def _said(self) -> str:
        return os.read(self.messages, _MESSAGES_BYTES).decode(errors="backslashreplace")

    def _await_ready(self) -> bool:
        """False if memcached has ended. If it is merely slow, its client will find it later."""
        deadline = time.monotonic() + _READY_SECONDS
        while self._guard.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.address.path) == 0 or time.monotonic() > deadline:
                    return True
            time.sleep(0.005)
        return False

    def _close_lifeline_in_child(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def _make_directory() -> str:
    """A new directory, short enough for the path of a socket in it."""
    parent = tempfile.gettempdir()
    fits = len(os.fsencode(parent)) + len("/tenantbase-12345678/memcached") <= LONGEST_PATH
    return tempfile.mkdtemp(prefix="tenantbase-", dir=parent if fits else "/tmp")


_started: weakref.WeakSet[PrivateMemcached] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A forked worker that held the lifeline would keep memcached alive after the service.
    for memcached in _started:
        memcached._close_lifeline_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
