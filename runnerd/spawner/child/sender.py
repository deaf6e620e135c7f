"""Open the files of a run that is to be forked of a warm interpreter, and send them to the interpreter.

A child of the spawner does this, as for a process that is started cold: the files are opened as their owner, and
neither a name service or a disk that does not answer, nor an interpreter that reads nothing, may stop the spawner.
"""

from __future__ import annotations

import os
import signal
import socket

from runnerd.spawner.child.files import RESULT_FD, open_files
from runnerd.spawner.child.inherited import close_all_but, reset_signals
from runnerd.spawner.io.messages import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NOT_SENT = 1


def run_sender(launch: Launch, owner: int | None, request: bytes, channel_fd: int, fds: tuple[int, ...]) -> NoReturn:
    """Send the request with /dev/null, the output, `fds` and the result file, if there is one; exit 0 if that worked.

    Never returns and never raises: the child would go on in the spawner's own loop.
    """
    status = _NOT_SENT
    try:
        signal.set_wakeup_fd(-1)
        channel_fd, *fds_here = close_all_but(channel_fd, *fds)
        reset_signals()
        os.umask(0o027)
        open_files(launch, owner)
        results = [] if launch.result is None else [RESULT_FD]
        channel = socket.socket(fileno=channel_fd)
        socket.send_fds(channel, [request], [0, 1, *fds_here, *results])
        status = 0
    finally:
        os._exit(status)
