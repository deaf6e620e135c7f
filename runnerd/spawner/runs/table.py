"""The runs there are: how they come to be known, are started, watched and forgotten.

* A run is known by (key, attempt); what is known is never started again.
* Nothing runs before its identity is on disk.
* Every change is published, and a run ends in exactly one `exited`.
How one is asked to end is in `stopping`, what happens once its leader has exited in `ending`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.cgroups.run_cgroup import Cgroup
from runnerd.spawner.child.account import SetupFailed
from runnerd.spawner.child.fork import Child, Launcher
from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import READ, Loop
from runnerd.spawner.io.messages import Launch, Refused
from runnerd.spawner.proc.identity import Boot, is_alive
from runnerd.spawner.proc.orphans import Strays
from runnerd.spawner.runs.announce import Teller
from runnerd.spawner.runs.confinement import Kernel
from runnerd.spawner.runs.ending import Ending
from runnerd.spawner.runs.intents import Intents
from runnerd.spawner.runs.live_run import Watch, exit_facts
from runnerd.spawner.runs.output_bound import trim
from runnerd.spawner.runs.records import RecordStore, Run
from runnerd.spawner.runs.stopping import Stopping

OUTPUT_LOOK_S = 5.0
KIN_LOOK_S = 5.0


class Runs:
    def __init__(
        self,
        *,
        loop: Loop,
        store: RecordStore,
        launcher: Launcher,
        kernel: Kernel,
        boot: Boot,
        intents: Intents,
        publish: Callable[[str, Run], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._launcher = launcher
        self._kernel = kernel
        self._boot = boot
        self._intents = intents
        self._teller = Teller(store=store, publish=publish)
        self._strays = Strays(leads=self._leads)
        self._stopping = Stopping(loop=loop, teller=self._teller, intents=intents)
        self._ending = Ending(loop=loop, kernel=kernel, strays=self._strays, intents=intents, done=self._ended)
        self._runs: dict[tuple[str, int], Run] = {}
        self._live: dict[tuple[str, int], Watch] = {}

    # --- what there is -----------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        return len(self._live)

    def all(self) -> list[Run]:
        return list(self._runs.values())

    def get(self, key: str, attempt: int) -> Run:
        run = self._runs.get((key, attempt))
        if run is None:
            raise Refused("unknown-run", f"there is no run {key} attempt {attempt}")
        return run

    def forget(self, run: Run) -> None:
        if run.phase != "exited":
            raise Refused("still-running", f"cannot forget run {run.key}: it is {run.phase}")
        self._store.remove(run)
        del self._runs[run.id]

    def restore(self) -> None:
        """Take over what an earlier spawner left: watch what lives, conclude what does not."""
        gone = []
        for run in self._store.load():
            self._runs[run.id] = run
            if run.phase == "exited":
                continue
            watch = Watch.find(run, self._boot, self._leaders)
            if watch is None:
                run.exit = exit_facts()
                self._teller.turn(run, "exited", "exited", save=True)
                continue
            self._live[run.id] = watch
            self._kernel.find(watch)
            if watch.pidfd is None:
                gone.append(watch)
            else:
                self._resume(watch, watch.pidfd)
        for watch in gone:  # once it is known who belongs to those that live
            self._ending.begin(watch)
        self._kernel.clean(self._live.values())

    def _leaders(self) -> list[int]:
        return [watch.pid for watch in self._live.values() if watch.sweep_until is None]

    def _leads(self, key: str) -> bool:
        return any(
            watch.run.key == key and watch.sweep_until is None and is_alive(watch.pid) for watch in self._live.values()
        )

    # --- start -------------------------------------------------------------------------------------------

    def spawn(self, launch: Launch, reply: Callable[[Run], None]) -> None:
        """Start it, unless it is known; `reply` when it has started or could not. Raises Refused."""
        known = self._runs.get((launch.key, launch.attempt))
        if known is None:
            self._start(launch, reply)
        elif known.phase == "starting" and known.id in self._live:
            self._live[known.id].waiting.append(reply)
        else:
            reply(known)

    def _start(self, launch: Launch, reply: Callable[[Run], None]) -> None:
        run = Run.of(launch, self._boot)
        try:
            self._launcher.check(launch)
        except SetupFailed as failure:
            self._refuse(run, {"stage": failure.stage, "errno": failure.errno, "message": str(failure)}, reply)
            return
        if launch.intents:
            launch.environment = {**launch.environment, **self._intents.offer(run.id)}
        cgroup = self._kernel.make_room(launch)
        try:
            child = self._launcher.fork(launch)
        except OSError as error:
            self._give_back(run, cgroup)
            message = f"cannot start: cannot fork: {error.strerror}"
            self._refuse(run, {"stage": "fork", "errno": error.errno, "message": message}, reply)
            return
        watch = self._hold(run, child, cgroup)
        watch.waiting.append(reply)
        self._strays.add_leader(child.pid)
        if not self._strays.sound:
            watch.seek_kin(self._leaders)
        self._live[run.id] = watch
        self._resume(watch, child.pidfd)
        self._loop.watch(child.status_fd, READ, partial(self._on_status, watch, child.status_fd))

    def _refuse(self, run: Run, error: dict[str, object], reply: Callable[[Run], None]) -> None:
        """It ends before there is a process of it."""
        run.error = error
        self._runs[run.id] = run
        self._teller.turn(run, "exited", "exited", save=True)
        reply(run)

    def _give_back(self, run: Run, cgroup: Cgroup | None) -> None:
        """What was made for a run that does not begin."""
        self._intents.drop(run.id)
        self._kernel.release(run, cgroup)

    def _hold(self, run: Run, child: Child, cgroup: Cgroup | None) -> Watch:
        """Put its identity on disk, then let it go; if that cannot be done, nothing runs."""
        ticks = child.start_ticks
        try:
            if ticks is None:
                raise OSError(None, "its start time cannot be read from /proc")
            run.pid, run.start_ticks = child.pid, ticks
            self._kernel.note(run)
            self._store.write(run)
        except OSError as error:
            child.abandon()
            self._give_back(run, cgroup)
            message = f"cannot start run {run.key}: cannot record it: {error.strerror}"
            raise Refused("could-not-record", message) from None
        watch = Watch.of(run, child, ticks)
        self._kernel.hold(watch, cgroup)
        child.go()
        self._runs[run.id] = run
        return watch

    def _on_status(self, watch: Watch, status_fd: int) -> None:
        if not watch.read_status():
            return
        self._loop.unwatch(status_fd)
        os.close(status_fd)
        if watch.run.error is not None:
            return  # it is exiting: the answer is given when it is gone
        if watch.run.phase == "starting":
            # Not written: a record that says `starting` is taken over just as one that says `running`.
            self._teller.turn(watch.run, "running", "started")
        self._answer(watch)

    def _answer(self, watch: Watch) -> None:
        waiting, watch.waiting = watch.waiting, []
        for reply in waiting:
            reply(watch.run)

    # --- watch -------------------------------------------------------------------------------------------

    def _resume(self, watch: Watch, pidfd: int) -> None:
        run = watch.run
        self._loop.watch(pidfd, READ, partial(self._on_leader_exit, watch, pidfd))
        if run.phase == "starting" and not watch.child:
            run.phase = "running"
        if watch.kin is not None:
            self._remember_kin(watch)
        self._stopping.resume(watch)
        if run.output_max_bytes is not None:
            self._look_at_output_later(watch)

    def _remember_kin(self, watch: Watch) -> None:
        """Again and again: what descends from the leader can only be seen as long as it lives."""
        watch.remember()
        self._loop.timer((watch.run.id, "kin"), time.monotonic() + KIN_LOOK_S, partial(self._remember_kin, watch))

    def _on_leader_exit(self, watch: Watch, pidfd: int) -> None:
        self._loop.unwatch(pidfd)
        while watch.status_fd is not None:  # both can be ready at once, and what it told decides how this ends
            self._on_status(watch, watch.status_fd)
        self._ending.begin(watch)

    def _ended(self, watch: Watch, facts: dict[str, object]) -> None:
        run = watch.run
        del self._live[run.id]
        if run.error is None:
            run.exit = facts
        self._teller.turn(run, "exited", "exited", save=True)
        self._answer(watch)

    def on_child(self) -> None:
        """SIGCHLD."""
        self._ending.on_child()

    def _look_at_output_later(self, watch: Watch) -> None:
        when = time.monotonic() + OUTPUT_LOOK_S
        self._loop.timer((watch.run.id, "output"), when, partial(self._look_at_output, watch))

    def _look_at_output(self, watch: Watch) -> None:
        run = watch.run
        try:
            if trim(run.output, run.output_max_bytes or 0, owner=self._launcher.owner):
                log(f"{run.name} output trimmed to {run.output_max_bytes} bytes")
        except OSError as error:
            log(f"{run.name} cannot trim {run.output}: {error.strerror}")
            return  # gone, or not ours: looking again would say the same
        self._look_at_output_later(watch)

    # --- ask -----------------------------------------------------------------------------------------------

    def stop(
        self,
        run: Run,
        *,
        reason: str,
        number: int | None = None,
        timeout_s: float | None = None,
        tell: str | None = None,
    ) -> None:
        watch = self._live.get(run.id)
        if watch is not None:
            self._stopping.stop(watch, reason=reason, number=number, timeout_s=timeout_s, tell=tell)

    def signal(self, run: Run, number: int) -> None:
        watch = self._live.get(run.id)
        if watch is not None:
            watch.signal(number)
