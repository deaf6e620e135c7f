"""Puts the spawner together and runs it; see `__main__` for what it promises."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence

from runnerd.spawner.child.account import Users
from runnerd.spawner.child.fork import Launcher
from runnerd.spawner.child.setup import Host
from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.io.notify import Notifier
from runnerd.spawner.io.server import Server, bind
from runnerd.spawner.options import USAGE, Failed, Options
from runnerd.spawner.proc.identity import Boot
from runnerd.spawner.proc.processes import become_subreaper
from runnerd.spawner.runs.confinement import Kernel
from runnerd.spawner.runs.intents import Intents
from runnerd.spawner.runs.records import RecordStore, Run
from runnerd.spawner.runs.table import Runs
from runnerd.spawner.verbs import Requests

FIRST_CLIENT_S = 30.0

EX_OSERR = 71
EX_TEMPFAIL = 75


def main(arguments: Sequence[str], *, store: Callable[[str], RecordStore] = RecordStore) -> int:
    if "--help" in arguments:
        os.write(1, USAGE.encode())
        return 0
    try:
        _keep_standard_fds()
        options = Options(arguments)
        ready = _fork_to_background(options.log) if options.log is not None else _nobody_waits
        serve(options, store=store, ready=ready)
    except Failed as failure:
        log(str(failure))
        return failure.status
    return 0


def _nobody_waits() -> None:
    return None


def _keep_standard_fds() -> None:
    """Were one of 0, 1, 2 closed, the next file opened would become some child's output."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _fork_to_background(log_file: str) -> Callable[[], None]:
    """Go on in a child, in its own session. The parent exits 0 once the result is called, else as the child does."""
    served_r, served_w = os.pipe()
    pid = os.fork()
    if pid:
        os.close(served_w)
        if os.read(served_r, 1):
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
    os.close(served_r)
    os.setsid()
    os.chdir("/")

    def ready() -> None:
        # Until now stderr was the caller's, to be told why we cannot serve.
        log_fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.close(log_fd)
        os.write(served_w, b"1")
        os.close(served_w)

    return ready


def serve(
    options: Options,
    *,
    store: Callable[[str], RecordStore] = RecordStore,
    ready: Callable[[], None] = _nobody_waits,
    first_client_s: float = FIRST_CLIENT_S,
) -> None:
    """Serve until SIGTERM, SIGINT or, if so asked, idle. Raises Failed."""
    manager = Notifier.take(os.environ)
    lock = _take_directory(options)
    _become_subreaper()
    loop = Loop()
    server = Server(loop=loop, allowed=frozenset({0, os.geteuid()} | {options.owner or 0}))

    def publish(event: str, run: Run) -> None:
        server.broadcast({"event": event, "record": run.seen()})

    try:
        records = store(os.path.join(options.runtime_dir, "records"))
        records.prepare()
        launcher = Launcher(Host(owner=options.owner, users=Users(options.users)))
        intents = Intents(loop=loop)
        kernel, boot = Kernel.here(unit=options.cgroup_unit), Boot.here()
        runs = Runs(
            loop=loop, store=records, launcher=launcher, kernel=kernel, boot=boot, intents=intents, publish=publish
        )
        stopping = _listen_to_signals(loop, runs)
        runs.restore()
        listener = bind(options.socket, options.owner)
        ready()
    except OSError as error:
        raise Failed(f"cannot serve {options.socket}: {error.strerror or error}", EX_OSERR) from None
    requests = Requests(runs, limits=kernel.limits, boot_id=boot.id, go=lambda: stopping.append(0))
    server.listen(listener, answer=requests.do, hello=requests.hello)
    log(f"serving {options.socket} with {runs.live} live runs")
    manager.ready(runs.live)
    if options.exit_when_idle:
        loop.timer("first client", time.monotonic() + first_client_s, server.expect_no_more)
    while not stopping and not (options.exit_when_idle and server.deserted and not runs.live):
        loop.turn()
        manager.live(runs.live)
    manager.stopping()
    log("told to go; runs go on" if stopping else "idle; going")
    os.unlink(options.socket)
    listener.close()
    os.close(lock)


def _take_directory(options: Options) -> int:
    """The lock that makes us the directory's only spawner; it goes with us, however we go."""
    try:
        os.makedirs(options.runtime_dir, mode=0o755, exist_ok=True)
        path = os.path.join(options.runtime_dir, "lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"cannot serve {options.runtime_dir}: another spawner does"
        raise Failed(message, EX_TEMPFAIL) from None
    except OSError as error:
        raise Failed(f"cannot use {options.runtime_dir}: {error.strerror}", EX_OSERR) from None
    return lock


def _become_subreaper() -> None:
    try:
        become_subreaper()
    except OSError as error:
        raise Failed(f"cannot become a subreaper: {error.strerror}", EX_OSERR) from None


def _listen_to_signals(loop: Loop, runs: Runs) -> list[int]:
    """The result is no longer empty once we were told to go."""
    stopping: list[int] = []
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop.on_signal(signal.SIGCHLD, runs.on_child)
    loop.on_signal(signal.SIGTERM, lambda: stopping.append(signal.SIGTERM))
    loop.on_signal(signal.SIGINT, lambda: stopping.append(signal.SIGINT))
    return stopping
