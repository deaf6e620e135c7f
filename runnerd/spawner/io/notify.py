"""Notify the service manager (sd_notify): READY=1 once the socket is served, STATUS= for `systemctl status`.

No method here raises, and none does anything without a service manager. A manager that does not read must not block
the spawner.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping

from runnerd.spawner.io.log import log

_SEND_TIMEOUT_S = 5.0  # for READY and STOPPING, which a job of the manager waits for


class Notifier:
    """Sends to the socket at `address`; an empty address sends nothing."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address  # abstract
        self._status = ""

    @classmethod
    def take_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take NOTIFY_SOCKET out of the environment: a process started later must not notify in our name."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def send_ready(self, live: int) -> None:
        """Send READY=1 and how many runs live."""
        self._status = _status(live)
        self._send(f"READY=1\n{self._status}", _SEND_TIMEOUT_S)

    def send_status(self, live: int) -> None:
        """Send how many runs live, if the number has changed."""
        status = _status(live)
        if status != self._status and self._send(status, 0.0):
            self._status = status

    def send_stopping(self) -> None:
        """Send STOPPING=1."""
        self._send("STOPPING=1", _SEND_TIMEOUT_S)

    def _send(self, text: str, timeout_s: float) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(timeout_s)
                sock.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False  # the status is sent again at the next event
        except OSError as error:
            log(f"cannot send {text.splitlines()[0]} to the service manager: {error.strerror or error}")
        return True


def _status(live: int) -> str:
    return f"STATUS={live} live runs"
