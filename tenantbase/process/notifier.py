"""Reports the state of the service to systemd or another service manager (sd_notify(3))."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tenantbase.process.service_manager import ServiceManager


class Notifier:
    """Sends messages to the service manager; does nothing without one.

    A message that cannot be sent is dropped: the service must not depend on its manager.
    """

    def __init__(self, manager: ServiceManager) -> None:
        address = manager.notify_socket
        # "@" stands for the zero byte of an address that is not in the file system.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def __bool__(self) -> bool:
        """Whether there is a service manager."""
        return self._socket is not None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self) -> None:
        """The service accepts requests, or has finished a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins. ``ready`` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The shutdown begins."""
        self._send("STOPPING=1\nSTATUS=finishing requests")

    def alive(self) -> None:
        """A heartbeat for the manager's watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """A line for people. Sent only if it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
