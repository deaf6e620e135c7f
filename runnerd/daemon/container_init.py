"""runnerd as process 1 of a container: an init process that reaps and forwards signals, with the daemon as its child.

Invariants: process 1 only reaps, forwards and waits, so it has no state to lose. Its signals are blocked before the
daemon is forked and then taken one by one with sigwait, so none is missed. It exits with the daemon's exit status, or
128 + the signal that killed the daemon, as soon as the daemon has ended.

Outside a container, the spawner and the flows outlive a daemon that crashes, and the next daemon adopts them. In a
container they do not, because the kernel kills every process when process 1 ends. A stop still drains, because process
1 waits for the daemon. After a crash, the next container settles the runs in the journal, if that is on a volume.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

from runnerd.core.errors import RunnerdError

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)  # fmt: skip


def become_init(environ: MutableMapping[str, str]) -> int | None:
    """Fork the daemon. Returns None in the daemon; in process 1, returns the daemon's exit status once it has ended.

    Raises RunnerdError when the fork fails. Corrects LISTEN_PID and WATCHDOG_PID in the daemon's `environ`.
    """
    awaited = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        daemon_pid = os.fork()
    except OSError as error:
        raise RunnerdError(f"cannot start the daemon below process 1: {error.strerror}; see pids.max") from error
    if daemon_pid:
        return _wait(daemon_pid, awaited)
    # In a session of its own the daemon gets a terminal's Ctrl-C only once, forwarded by process 1. In the same session
    # it would get the signal twice, and the second one cuts a drain short.
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for name in ("LISTEN_PID", "WATCHDOG_PID"):  # the container's manager set them to the PID of process 1
        if environ.get(name) == "1":
            environ[name] = str(os.getpid())
    return None


def _wait(daemon_pid: int, awaited: set[signal.Signals]) -> int:
    """Forward signals and reap until the daemon has ended; return its exit status."""
    while True:
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            os.kill(daemon_pid, number)  # the daemon was not reaped yet, so its PID cannot have been reused
            continue
        status = _reap(daemon_pid)
        if status is not None:
            return status


def _reap(daemon_pid: int) -> int | None:
    """Reap every ended child, because one SIGCHLD may stand for several; return the daemon's status if it has ended."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == daemon_pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
