"""Open the files of a run that is to be forked of a warm interpreter, and send them to the interpreter.

A child of the spawner does this, as for a process that is started cold: the files are opened as their owner, and
neither a name service or a disk that does not answer, nor an interpreter that reads nothing, may stop the spawner.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from runnerd.spawner.child.account import Privileges, RunAccount, find_account
from runnerd.spawner.child.files import RESULT_FD, open_files
from runnerd.spawner.child.inherited import close_all_but, reset_signals
from runnerd.spawner.io.messages import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NOT_SENT, OTHER_ACCOUNT = 1, 2  # exit statuses
Fits = Callable[[RunAccount], bool]


def run_sender(
    launch: Launch, privileges: Privileges, request: bytes, *, fits: Fits, channel_fd: int, fds: tuple[int, ...]
) -> NoReturn:
    """Send the request with /dev/null, the output, `fds` and the result file, if there is one; exit 0 if that worked.

    Not where the run's account, as it is now, does not fit: a user that was taken out of a group must not keep it in
    the forks of an interpreter that has it.

    Never returns and never raises: the child would go on in the spawner's own loop.
    """
    status = NOT_SENT
    try:
        signal.set_wakeup_fd(-1)
        channel_fd, *fds_here = close_all_but(channel_fd, *fds)
        reset_signals()
        account = find_account(launch, privileges)
        if account is not None and privileges.root and not fits(account):
            os._exit(OTHER_ACCOUNT)
        os.umask(0o027)
        open_files(launch, privileges.owner if privileges.root else None)
        results = [] if launch.result is None else [RESULT_FD]
        channel = socket.socket(fileno=channel_fd)
        socket.send_fds(channel, [request], [0, 1, *fds_here, *results])
        status = 0
    finally:
        os._exit(status)
