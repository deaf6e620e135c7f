"""Start runs: cold, by a fork of the spawner and an exec, or warm, as a fork of a warm interpreter.

* No program runs before its process's identity is on disk.
* A run that is to start warm, and cannot, starts cold, by the same request: never both, because a forked process does
  nothing before its release, and the pipe for this is closed before the run is started cold.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.child.account import SetupFailed
from runnerd.spawner.child.fork import Child, Forker
from runnerd.spawner.io.log import log
from runnerd.spawner.io.messages import Launch, RequestRefused
from runnerd.spawner.proc.identity import Boot
from runnerd.spawner.runs.confinement import Confinement
from runnerd.spawner.runs.intents import IntentServer
from runnerd.spawner.runs.live_run import LiveRun
from runnerd.spawner.runs.records import ProcessRecord, RecordStore
from runnerd.spawner.warm.channel import make_channel
from runnerd.spawner.warm.interpreter import Warm
from runnerd.spawner.warm.interpreters import Interpreters

Outcome = ProcessRecord | RequestRefused
Reply = Callable[[Outcome], None]
RunId = tuple[str, int]


class _Start:
    """A start that has been requested and has no process yet; `later` is done once the run is released."""

    __slots__ = ("cgroup", "later", "launch", "replies", "run")

    def __init__(self, run: ProcessRecord, launch: Launch, reply: Reply) -> None:
        self.run = run
        self.launch = launch
        self.replies = [reply]
        self.later: list[Callable[[], None]] = []
        self.cgroup: RunCgroup | None = None

    def answer(self, outcome: Outcome) -> None:
        for reply in self.replies:
            reply(outcome)


class Starts:
    """Starts runs, and calls back.

    `released` gets each run whose process was released, with the descriptor of the process's report; `failed` each that
    never had a process; `change_warm` each change of an interpreter's record; `kill` an interpreter that misbehaves.
    """

    def __init__(
        self,
        *,
        boot: Boot,
        store: RecordStore,
        forker: Forker,
        confinement: Confinement,
        intents: IntentServer,
        interpreters: Interpreters,
        released: Callable[[LiveRun, int], None],
        failed: Callable[[ProcessRecord], None],
        change_warm: Callable[[ProcessRecord, Warm], None],
        kill: Callable[[ProcessRecord], None],
    ) -> None:
        self._boot = boot
        self._store = store
        self._forker = forker
        self._confinement = confinement
        self._intents = intents
        self._interpreters = interpreters
        self._released = released
        self._failed = failed
        self._change_warm = change_warm
        self._kill = kill
        self._under_way: dict[RunId, _Start] = {}  # runs that a warm interpreter was asked to fork

    @property
    def count(self) -> int:
        """How many starts are under way."""
        return len(self._under_way)

    def find(self, run: RunId) -> ProcessRecord | None:
        """Return the record of a run whose start is under way; its phase is `starting`, and it has no pid yet."""
        start = self._under_way.get(run)
        return None if start is None else start.run

    def join(self, run: RunId, reply: Reply) -> bool:
        """Answer one more request with the start of this run; False if none is under way."""
        if run in self._under_way:
            self._under_way[run].replies.append(reply)
        return run in self._under_way

    def do_later(self, run: RunId, what: Callable[[], None]) -> None:
        """Do something once the run is released, if its start is under way."""
        if run in self._under_way:
            self._under_way[run].later.append(what)

    def begin(self, launch: Launch, reply: Reply) -> None:
        """Start a run; `reply` once it has started or failed, or is refused."""
        start = _Start(ProcessRecord.of_launch(launch, self._boot), launch, reply)
        try:
            self._forker.check_user(launch)
        except SetupFailed as failure:
            self._fail(start, {"stage": failure.stage, "errno": failure.errno, "message": str(failure)})
            return
        if launch.forks:
            # By it a fork that waits for its release is known as the interpreter's, and is no orphan of a run.
            launch.environment = {**launch.environment, "RUNNERD_RUN_ID": launch.key}
        if launch.intents:
            launch.environment = {**launch.environment, **self._intents.make_environment(start.run.id)}
        start.cgroup = self._confinement.make_cgroup(launch)
        if launch.fork_of is None or launch.forks:
            self._start_cold(start)
        else:
            self._start_warm(start, launch.fork_of)

    def _fail(self, start: _Start, error: dict[str, object]) -> None:
        """Conclude a run that failed before it had a process."""
        start.run.error = error
        self._failed(start.run)
        start.answer(start.run)

    def _undo_preparations(self, start: _Start) -> None:
        """Drop the token and the cgroup of a run that does not start."""
        self._intents.close_run(start.run.id)
        self._confinement.remove_cgroup(start.run, start.cgroup)

    # --- warm --------------------------------------------------------------------------------------------

    def _start_warm(self, start: _Start, of: RunId) -> None:
        self._under_way[start.run.id] = start
        confined, done = start.cgroup is not None, partial(self._on_forked, start)
        problem = self._interpreters.fork(of, start.launch, confined=confined, done=done)
        if problem is not None:
            self._on_forked(start, None, problem)

    def _on_forked(self, start: _Start, child: Child | None, problem: str) -> None:
        del self._under_way[start.run.id]
        if child is not None and not self._confinement.enter_cgroup(start.run, child.pid, start.cgroup):
            # In the cgroup of the interpreter the run would be killed together with that.
            child.abandon()
            child, problem = None, "the forked process cannot enter the cgroup of the run"
        if child is not None:
            start.run.start = "warm"
            self._release(start, child, confined=True)
        else:
            log(f"{start.run.name} starts cold: {problem}")
            start.run.start_problem = problem
            self._start_cold(start)
        for do in start.later:
            do()

    # --- cold --------------------------------------------------------------------------------------------

    def _start_cold(self, start: _Start) -> None:
        channel: list[socket.socket] = []
        try:
            channel += make_channel() if start.launch.forks else ()
            child = self._forker.fork(start.launch, channel[1].fileno() if channel else None)
        except OSError as error:
            self._undo_preparations(start)
            message = f"cannot start: cannot fork: {error.strerror}"
            self._fail(start, {"stage": "fork", "errno": error.errno, "message": message})
        else:
            if self._release(start, child, confined=False) and channel:
                self._add_interpreter(start, channel.pop(0))
        finally:
            for sock in channel:
                sock.close()

    def _add_interpreter(self, start: _Start, sock: socket.socket) -> None:
        run = start.run
        self._interpreters.add(
            start.launch,
            sock,
            confined=start.cgroup is not None,
            change=partial(self._change_warm, run),
            give_up=partial(self._kill, run),
        )

    # --- both --------------------------------------------------------------------------------------------

    def _release(self, start: _Start, child: Child, *, confined: bool) -> bool:
        """Write the child's identity to disk, then release the child; False if that failed, and no program runs.

        `confined`: the child is in its cgroup. Otherwise it enters that after its identity is on disk: a cgroup with a
        child that has yet to exit could not be removed.
        """
        run = start.run
        try:
            if child.start_ticks is None:
                raise OSError(None, "its start time cannot be read from /proc")
            run.pid, run.start_ticks = child.pid, child.start_ticks
            self._confinement.mark_kernel_log(run)
            self._store.write(run)
        except OSError as error:
            child.abandon()
            self._undo_preparations(start)
            message = f"cannot start run {run.key}: cannot write its record: {error.strerror}"
            start.answer(RequestRefused("could-not-record", message))
            return False
        live = LiveRun.of_child(run, child, child.start_ticks)
        live.cgroup = start.cgroup
        live.waiting += start.replies
        if not confined:
            self._confinement.enter_cgroup(run, child.pid, start.cgroup)
        child.release()
        self._released(live, child.status_fd)
        return True
