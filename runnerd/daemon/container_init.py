"""runnerd as process 1 of a container: a parent that reaps and passes signals on, and the daemon below it.

Invariants: process 1 does nothing but reap, forward and wait, so it has no state that could be lost; every signal is
blocked there before the daemon exists and taken one by one, so none is missed and none meets half-made state; it ends
with the daemon's status (128 + the signal that killed it) as soon as that is known.

Outside a container the spawner and the flows outlive a daemon that crashes, and its successor adopts them. Here they
do not: when process 1 ends, the kernel kills everything in the container. A stop still drains, because process 1 waits
for the daemon; after a crash the next container settles the runs it finds in the journal, if that is on a volume.
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
    """Fork. None in the child, which goes on as the daemon; its exit status in process 1, once it has ended."""
    waited = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        daemon = os.fork()
    except OSError as error:
        raise RunnerdError(f"cannot start the daemon below process 1: {error.strerror}; see pids.max") from error
    if daemon:
        return _watch(daemon, waited)
    # A session of its own: what a terminal sends reaches process 1 only and is forwarded once. Sent twice, one Ctrl-C
    # would be the second signal that cuts a drain short.
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for name in ("LISTEN_PID", "WATCHDOG_PID"):  # a container's manager means its process 1
        if environ.get(name) == "1":
            environ[name] = str(os.getpid())
    return None


def _watch(daemon: int, waited: set[signal.Signals]) -> int:
    """Forward and reap until the daemon has ended; its exit status."""
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            os.kill(daemon, number)  # not reaped yet, so the pid is still its own
            continue
        status = _reap(daemon)
        if status is not None:
            return status


def _reap(daemon: int) -> int | None:
    """Reap all that have ended: signals of a kind merge, so one SIGCHLD stands for any number of them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == daemon:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
