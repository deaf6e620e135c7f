"""The server of the control API: creates the Unix socket, guards its file, and connects it to the routes.

Invariants: the mode of the socket file says who is a client, and `control` what a client may do. The file never has a
wider mode than configured, not even for a moment. Only a socket file without a listener is replaced, and on close only
the file that this server created is removed. A socket passed by systemd is used as it is, and its file is not touched.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from runnerd.control.contract import Host
from runnerd.control.http.guard import Guard
from runnerd.control.http.listener import Listener, RequestLog
from runnerd.control.http.router import Router
from runnerd.control.public_port import PublicPort
from runnerd.control.routes.table import build_routes, build_web_routes
from runnerd.core.errors import ControlError
from runnerd.core.problems import Problems
from runnerd.core.settings import ControlSettings
from runnerd.files.bounded_calls import BoundedCalls

LIVE_CHECK_S = 5.0
BACKLOG = 64


class ControlServer:
    """Serves `host` on `sockets` if systemd passed any, else on a new socket at `socket_path`.

    `control` is the section of the configuration in force. `stop` is what `POST /shutdown` calls. The new socket file
    gets `mode` and, if it exists and chown is permitted, `group`.
    """

    def __init__(
        self,
        *,
        host: Host,
        control: Callable[[], ControlSettings] = ControlSettings,
        problems: Problems,
        log: RequestLog,
        socket_path: str,
        calls: BoundedCalls,
        stop: Callable[[], None] = lambda: None,
        sockets: Sequence[socket.socket] = (),
        mode: int = 0o660,
        group: str | None = None,
    ) -> None:
        guard = Guard(control=control)
        routes = build_routes(host=host, log=log, guard=guard)
        self._listener = Listener(router=Router(routes, guard=guard), log=log)
        web = build_web_routes(host=host, log=log, stop=stop)
        self.public = PublicPort(routes=routes, more=web, problems=problems, log=log, calls=calls)
        self._path = socket_path
        self._sockets = tuple(sockets)
        self._mode = mode
        self._group = group
        self._file: tuple[int, int] | None = None  # device and inode of the socket file that this server created

    async def start(self) -> None:
        """Start to listen. Raises ControlError when another runnerd listens there or the socket cannot be created."""
        if self._sockets:
            await self._listener.start(self._sockets)
            return
        try:
            listening = self._bind()
        except OSError as error:
            raise ControlError(f"cannot listen on {self._path}: {error.strerror or error}") from None
        await self._listener.start([listening])

    async def close(self) -> None:
        """Remove the socket file, so that no new client connects; then stop listening and end every connection."""
        if self._file is not None:
            with suppress(OSError):
                about = os.lstat(self._path)
                if (about.st_dev, about.st_ino) == self._file:
                    os.unlink(self._path)
            self._file = None
        await self._listener.close()

    def _bind(self) -> socket.socket:
        remove_stale(self._path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # bind() gives the file the mode of the socket: no other user can connect before the group is set.
            os.fchmod(listening.fileno(), 0o600 & self._mode)
            listening.bind(self._path)
            about = os.lstat(self._path)
            self._file = (about.st_dev, about.st_ino)
            self._give_to_group()
            os.chmod(self._path, self._mode)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening

    def _give_to_group(self) -> None:
        if self._group is None:
            return
        with suppress(KeyError, PermissionError):
            os.chown(self._path, -1, grp.getgrnam(self._group).gr_gid)


def remove_stale(path: str) -> None:
    """Remove the socket file at `path` if no process listens on it.

    Raises ControlError when a process listens or the file is no socket, OSError when the file cannot be removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"cannot listen on {path}: the file there is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(LIVE_CHECK_S)  # connect() on a Unix socket blocks only while the listen backlog is full
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except TimeoutError:
            raise ControlError(
                f"cannot listen on {path}: another runnerd is running there and does not answer; stop it first"
            ) from None
        size = struct.calcsize("iII")
        pid, _, _ = struct.unpack("iII", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    raise ControlError(f"cannot listen on {path}: another runnerd is running there (pid {pid}); stop it first")
