"""Build the spawner from its parts and run its loop; `__main__` lists the exit statuses."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence

from runnerd.spawner.build_id import read_build_id
from runnerd.spawner.child.account import Privileges
from runnerd.spawner.child.fork import Forker
from runnerd.spawner.child.users import AllowedUsers
from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.io.notify import Notifier
from runnerd.spawner.io.server import Server, bind
from runnerd.spawner.options import USAGE, CannotServe, Options
from runnerd.spawner.proc.identity import Boot
from runnerd.spawner.proc.processes import become_subreaper
from runnerd.spawner.runs.confinement import Confinement
from runnerd.spawner.runs.intents import IntentServer
from runnerd.spawner.runs.records import ProcessRecord, RecordStore
from runnerd.spawner.runs.table import RunTable
from runnerd.spawner.verbs import Verbs

FIRST_CLIENT_TIMEOUT_S = 30.0  # how long --exit-when-idle waits for a client

EX_OSERR = 71
EX_TEMPFAIL = 75


def main(arguments: Sequence[str], *, store: Callable[[str], RecordStore] = RecordStore) -> int:
    """Run the spawner until its end; return the exit status. `store` makes the record store of a directory."""
    if "--help" in arguments:
        os.write(1, USAGE.encode())
        return 0
    try:
        _open_standard_fds()
        options = Options(arguments)
        ready = _fork_to_background(options.log) if options.log is not None else _do_nothing
        serve(options, store=store, ready=ready)
    except CannotServe as failure:
        log(str(failure))
        return failure.status
    return 0


def _do_nothing() -> None:
    return None


def _open_standard_fds() -> None:
    """Open /dev/null for each of descriptors 0 to 2 that is closed, or the next file opened would take its number."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _fork_to_background(log_file: str) -> Callable[[], None]:
    """Fork, and return in the child, in a session of its own; the result is to be called once the socket is served.

    The parent then exits 0, or with the child's exit status if the child ends before.
    """
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
        # Until now stderr was the caller's, who reads there why the spawner cannot serve.
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
    ready: Callable[[], None] = _do_nothing,
    first_client_s: float = FIRST_CLIENT_TIMEOUT_S,
) -> None:
    """Serve until SIGTERM, SIGINT or `retire`, or with --exit-when-idle until idle. Raises CannotServe.

    `ready` is called once the socket is served.
    """
    manager = Notifier.take_from(os.environ)
    lock = _lock_directory(options)
    _become_subreaper()
    loop = Loop()
    server = Server(loop=loop, allowed=frozenset({0, os.geteuid()} | {options.owner or 0}))

    def publish(event: str, run: ProcessRecord) -> None:
        server.broadcast({"event": event, "record": run.to_wire()})

    try:
        records = store(os.path.join(options.runtime_dir, "records"))
        records.make_directory()
        users = AllowedUsers(options.users, root=os.geteuid() == 0, owner=options.owner)
        about = {"users": users.to_wire(), "build": read_build_id()}
        confinement, boot = Confinement.set_up(unit=options.cgroup_unit), Boot.current()
        runs = RunTable(
            loop=loop,
            store=records,
            forker=Forker(Privileges(owner=options.owner, users=users)),
            confinement=confinement,
            boot=boot,
            intents=IntentServer(loop=loop),
            publish=publish,
        )
        stopping = _watch_signals(loop, runs)
        runs.adopt_runs()
        listener = bind(options.socket, options.owner)
        ready()
    except OSError as error:
        raise CannotServe(f"cannot serve {options.socket}: {error.strerror or error}", EX_OSERR) from None
    verbs = Verbs(
        runs,
        describe=lambda: {**confinement.describe_limits(), **about},
        boot_id=boot.id,
        end_loop=lambda: stopping.append(0),
    )
    server.listen(listener, answer=verbs.answer, hello=verbs.make_hello)
    log(f"serving {options.socket} with {runs.live_count} live runs")
    manager.send_ready(runs.live_count)
    if options.exit_when_idle:
        loop.set_timer("first client", time.monotonic() + first_client_s, server.expect_no_client)
    while not stopping and not (options.exit_when_idle and server.deserted and not runs.live_count):
        loop.run_once()
        manager.send_status(runs.live_count)
    manager.send_stopping()
    log("exiting on request; runs go on" if stopping else "exiting: idle")
    os.unlink(options.socket)
    listener.close()
    os.close(lock)


def _lock_directory(options: Options) -> int:
    """Lock the runtime directory for this spawner alone; the kernel releases the lock when the process ends."""
    try:
        os.makedirs(options.runtime_dir, mode=0o755, exist_ok=True)
        path = os.path.join(options.runtime_dir, "lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"cannot serve {options.runtime_dir}: another spawner does"
        raise CannotServe(message, EX_TEMPFAIL) from None
    except OSError as error:
        raise CannotServe(f"cannot use {options.runtime_dir}: {error.strerror}", EX_OSERR) from None
    return lock


def _become_subreaper() -> None:
    try:
        become_subreaper()
    except OSError as error:
        raise CannotServe(f"cannot become a subreaper: {error.strerror}", EX_OSERR) from None


def _watch_signals(loop: Loop, runs: RunTable) -> list[int]:
    """Return a list that stays empty until the spawner is to end."""
    stopping: list[int] = []
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop.watch_signal(signal.SIGCHLD, runs.on_sigchld)
    loop.watch_signal(signal.SIGTERM, lambda: stopping.append(signal.SIGTERM))
    loop.watch_signal(signal.SIGINT, lambda: stopping.append(signal.SIGINT))
    return stopping
