"""Undo what a forked child of the spawner has inherited: descriptors and signal handlers."""

from __future__ import annotations

import fcntl
import os
import signal

_FIRST_FD = 3
_MIN_PIPE_FD = 10


def close_all_but(*pipes: int) -> list[int]:
    """Move the pipes above descriptors 0 to 3, and close all other descriptors from 3 on."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _MIN_PIPE_FD) for fd in pipes]
    low = _FIRST_FD
    for fd in sorted(moved):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    return moved


def reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
