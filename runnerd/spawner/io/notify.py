"""Tells the service manager how we are: READY=1 when it can start who needs us, STATUS= for `systemctl status`.

Nothing here raises, and without a manager nothing happens. A manager that does not read must not hold up the runs.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping

from runnerd.spawner.io.log import log

_PATIENCE_S = 5.0  # for what a job of the manager waits for


class Notifier:
    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address  # abstract
        self._status = ""

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Of this process alone: whoever is started later must not speak in our name."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def ready(self, live: int) -> None:
        self._status = _status(live)
        self._send(f"READY=1\n{self._status}", _PATIENCE_S)

    def live(self, runs: int) -> None:
        """How many runs live; told when it has changed."""
        status = _status(runs)
        if status != self._status and self._send(status, 0.0):
            self._status = status

    def stopping(self) -> None:
        self._send("STOPPING=1", _PATIENCE_S)

    def _send(self, text: str, patience_s: float) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(patience_s)
                sock.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False  # it is told the next time something happens
        except OSError as error:
            log(f"cannot tell the service manager {text.splitlines()[0]}: {error.strerror or error}")
        return True


def _status(live: int) -> str:
    return f"STATUS={live} live runs"
