"""Keep the table of runs: start, adopt, watch and forget them.

* A run is identified by (key, attempt); a run that is in the table is not started again.
* Every change of phase is published, and a run ends with exactly one `exited`.
`starts` starts a run, `stopping` stops it, `ending` concludes it after the exit of its leader.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.child.fork import Forker
from runnerd.spawner.io.loop import READ, Loop
from runnerd.spawner.io.messages import Launch, RequestRefused
from runnerd.spawner.io.write_watch import WriteWatch
from runnerd.spawner.proc.identity import Boot, is_alive
from runnerd.spawner.proc.orphans import Orphans
from runnerd.spawner.runs.announce import Announcer
from runnerd.spawner.runs.confinement import Confinement
from runnerd.spawner.runs.ending import Ending
from runnerd.spawner.runs.intents import IntentServer
from runnerd.spawner.runs.live_run import LiveRun, exit_facts
from runnerd.spawner.runs.outputs import Outputs
from runnerd.spawner.runs.records import ProcessRecord, RecordStore
from runnerd.spawner.runs.starts import Reply, Starts
from runnerd.spawner.runs.stopping import Stopping
from runnerd.spawner.warm.interpreter import Warm
from runnerd.spawner.warm.interpreters import Interpreters

LINEAGE_SCAN_PERIOD_S = 5.0


class RunTable:
    """All runs; `publish` sends an event and a record to the clients."""

    def __init__(
        self,
        *,
        loop: Loop,
        store: RecordStore,
        forker: Forker,
        confinement: Confinement,
        boot: Boot,
        intents: IntentServer,
        publish: Callable[[str, ProcessRecord], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._confinement = confinement
        self._boot = boot
        self._announcer = Announcer(store=store, publish=publish)
        self._orphans = Orphans(has_live_leader=self._has_live_leader)
        self._stopping = Stopping(loop=loop, announcer=self._announcer, intents=intents)
        self._outputs = Outputs(loop=loop, watch=WriteWatch(loop=loop), owner=forker.owner)
        self._ending = Ending(
            loop=loop, confinement=confinement, orphans=self._orphans, intents=intents, done=self._on_end
        )
        self._interpreters = Interpreters(loop=loop, forker=forker, orphans=self._orphans)
        self._starts = Starts(
            boot=boot,
            store=store,
            forker=forker,
            confinement=confinement,
            intents=intents,
            interpreters=self._interpreters,
            released=self._on_released,
            failed=self._on_failed,
            change_warm=self._change_warm,
            kill=self._kill_interpreter,
        )
        self._runs: dict[tuple[str, int], ProcessRecord] = {}
        self._live: dict[tuple[str, int], LiveRun] = {}

    # --- the table ---------------------------------------------------------------------------------------

    @property
    def live_count(self) -> int:
        """How many runs have not exited; without warm interpreters, which end when the spawner does."""
        return self._starts.count + sum(live.run.warm is None for live in self._live.values())

    def all(self) -> list[ProcessRecord]:
        """Return the records of all runs that have a process or had one."""
        return list(self._runs.values())

    def get(self, key: str, attempt: int) -> ProcessRecord:
        """Return the record of a run. Raises RequestRefused ("unknown-run")."""
        run = self._runs.get((key, attempt)) or self._starts.find((key, attempt))
        if run is None:
            raise RequestRefused("unknown-run", f"there is no run {key} attempt {attempt}")
        return run

    def forget(self, run: ProcessRecord) -> None:
        """Drop the record of a run that has exited. Raises RequestRefused ("still-running")."""
        if run.phase != "exited":
            raise RequestRefused("still-running", f"cannot forget run {run.key}: it is {run.phase}")
        self._store.remove(run)
        del self._runs[run.id]

    def adopt_runs(self) -> None:
        """Take over the runs that an earlier spawner left: watch those that live, conclude the others."""
        gone = []
        for run in self._store.load():
            self._runs[run.id] = run
            if run.phase == "exited":
                continue
            live = LiveRun.of_record(run, self._boot, self._leaders)
            if live is None:
                run.exit = exit_facts()
                self._outputs.end(run)
                self._announcer.change_phase(run, "exited", "exited", save=True)
                continue
            self._live[run.id] = live
            self._confinement.find_cgroup(live)
            if live.pidfd is None:
                gone.append(live)
            else:
                self._resume(live, live.pidfd)
        for live in gone:  # after the others, whose processes must not be taken for those of an ended run
            self._ending.begin(live)
        self._confinement.remove_old_cgroups(self._live.values())

    def _leaders(self) -> list[int]:
        return [live.pid for live in self._live.values() if live.sweep_until is None]

    def _has_live_leader(self, key: str) -> bool:
        return any(
            live.run.key == key and live.sweep_until is None and is_alive(live.pid) for live in self._live.values()
        )

    # --- start -------------------------------------------------------------------------------------------

    def spawn(self, launch: Launch, reply: Reply) -> None:
        """Start a run, unless the table has it; `reply` once it has started or failed, or is refused."""
        run = (launch.key, launch.attempt)
        known = self._runs.get(run)
        if known is None:
            if not self._starts.join(run, reply):
                self._starts.begin(launch, reply)
        elif known.phase == "starting" and known.id in self._live:
            self._live[known.id].waiting.append(reply)
        else:
            reply(known)

    def _on_failed(self, run: ProcessRecord) -> None:
        self._runs[run.id] = run
        self._announcer.change_phase(run, "exited", "exited", save=True)

    def _on_released(self, live: LiveRun, status_fd: int) -> None:
        assert live.pidfd is not None
        self._runs[live.run.id] = live.run
        self._orphans.add_leader(live.pid)
        if not self._orphans.reliable:
            live.track_lineage(self._leaders)
        self._live[live.run.id] = live
        self._resume(live, live.pidfd)
        self._loop.watch_fd(status_fd, READ, partial(self._on_report, live, status_fd))

    def _change_warm(self, run: ProcessRecord, warm: Warm) -> None:
        run.warm = warm
        self._announcer.change_phase(run, run.phase, "changed", save=True)

    def _kill_interpreter(self, run: ProcessRecord) -> None:
        self.stop(run, reason="misbehaves", timeout_s=0.0)

    def _on_report(self, live: LiveRun, status_fd: int, *, last: bool = False) -> None:
        if not live.read_report(last=last):
            return
        self._loop.unwatch_fd(status_fd)
        os.close(status_fd)
        if live.run.error is not None:
            # The child is exiting: the clients are answered when it is gone. A fork may have other plans.
            live.send_signal(signal.SIGKILL)
            return
        self._interpreters.on_started(live.run.id, live.pid)
        if live.run.phase == "starting":
            # Not written to disk: a later spawner adopts a record that says `starting` as one that says `running`.
            self._announcer.change_phase(live.run, "running", "started")
        self._answer(live)

    def _answer(self, live: LiveRun) -> None:
        waiting, live.waiting = live.waiting, []
        for reply in waiting:
            reply(live.run)

    # --- watch -------------------------------------------------------------------------------------------

    def _resume(self, live: LiveRun, pidfd: int) -> None:
        run = live.run
        self._loop.watch_fd(pidfd, READ, partial(self._on_leader_exit, live, pidfd))
        if run.phase == "starting" and not live.child:
            run.phase = "running"
        if live.lineage is not None:
            self._scan_lineage(live)
        self._stopping.resume(live)
        self._outputs.begin(run)

    def _scan_lineage(self, live: LiveRun) -> None:
        """Record the run's processes, again every few seconds: only a living leader shows its descendants."""
        live.record_members()
        when = time.monotonic() + LINEAGE_SCAN_PERIOD_S
        self._loop.set_timer((live.run.id, "lineage"), when, partial(self._scan_lineage, live))

    def _on_leader_exit(self, live: LiveRun, pidfd: int) -> None:
        self._loop.unwatch_fd(pidfd)
        while live.status_fd is not None:  # both descriptors can be ready at once, and a failed set-up decides the end
            self._on_report(live, live.status_fd, last=True)
        self._ending.begin(live)

    def _on_end(self, live: LiveRun, facts: dict[str, object]) -> None:
        run = live.run
        self._interpreters.drop(run.id)
        self._outputs.end(run)
        del self._live[run.id]
        if run.error is None:
            run.exit = facts
        self._announcer.change_phase(run, "exited", "exited", save=True)
        self._answer(live)

    def on_sigchld(self) -> None:
        """Handle the exit of a child."""
        self._ending.on_child_exit()

    # --- requests ------------------------------------------------------------------------------------------

    def stop(
        self,
        run: ProcessRecord,
        *,
        reason: str,
        signal_number: int | None = None,
        timeout_s: float | None = None,
        intent: str | None = None,
    ) -> None:
        """Stop a run, as `Stopping.stop` says; nothing happens to one that has exited."""
        live = self._live.get(run.id)
        if live is not None:
            self._stopping.stop(live, reason=reason, signal_number=signal_number, timeout_s=timeout_s, intent=intent)
            return
        again = partial(self.stop, run, reason=reason, signal_number=signal_number, timeout_s=timeout_s, intent=intent)
        self._starts.do_later(run.id, again)

    def send_signal(self, run: ProcessRecord, number: int) -> None:
        """Signal the run's process group; nothing happens to a run that has exited."""
        live = self._live.get(run.id)
        if live is not None:
            live.send_signal(number)
        else:
            self._starts.do_later(run.id, partial(self.send_signal, run, number))
