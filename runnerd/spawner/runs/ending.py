"""Conclude a run whose leader has exited: kill its remaining processes, reap the leader, report the exit.

The leader stays a zombie until the other processes are gone, so that its pid is not reused while they are killed; only
then the exit is reported. Processes that do not die within SWEEP_TIMEOUT_S are named in the log and left alone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.proc.orphans import Orphans
from runnerd.spawner.proc.processes import describe_process
from runnerd.spawner.runs.confinement import Confinement
from runnerd.spawner.runs.intents import IntentServer
from runnerd.spawner.runs.live_run import LiveRun

SWEEP_TIMEOUT_S = 5.0
_SWEEP_PAUSE_MIN_S = 0.01
_SWEEP_PAUSE_MAX_S = 0.25


class Ending:
    """Concludes runs; `done` is called with each run that has ended, and the facts of its leader's exit."""

    def __init__(
        self,
        *,
        loop: Loop,
        confinement: Confinement,
        orphans: Orphans,
        intents: IntentServer,
        done: Callable[[LiveRun, dict[str, object]], None],
    ) -> None:
        self._loop = loop
        self._confinement = confinement
        self._orphans = orphans
        self._intents = intents
        self._done = done
        self._sweeping: dict[tuple[str, int], LiveRun] = {}

    def begin(self, live: LiveRun) -> None:
        """Begin the end of a run whose leader has exited."""
        run = live.run
        for timer in ("kill", "runtime", "lineage"):
            self._loop.cancel_timer((run.id, timer))
        live.sweep_until = time.monotonic() + SWEEP_TIMEOUT_S
        run.receipt = self._intents.close_run(run.id)
        self._sweeping[run.id] = live
        if live.child:
            live.send_signal(signal.SIGKILL)  # to the whole group at once, so that none of it outruns this by forking
        self._sweep(live)

    def on_child_exit(self) -> None:
        """Reap exited children and kill orphans at once: they became ours with that exit, and may be forking."""
        self._orphans.reap()
        waiting = [live for live in self._sweeping.values() if live.lineage is None]
        if waiting and not self._try(waiting[0], self._orphans.kill_all):
            for live in waiting:
                if not self._try(live, live.kill_cgroup):
                    self._conclude(live)

    def _sweep(self, live: LiveRun) -> None:
        """Kill what is left of the run, and again by a timer until none is: killed processes take a moment to exit."""
        left_in_cgroup = self._try(live, live.kill_cgroup)
        left = self._try(live, self._kill_orphans if live.lineage is None else live.lineage.sweep) or left_in_cgroup
        wait_s = (live.sweep_until or 0.0) - time.monotonic()
        if left and wait_s > 0:
            # Short pauses at first: a client may be waiting for the run's end.
            pause = min(_SWEEP_PAUSE_MAX_S, _SWEEP_PAUSE_MIN_S + (SWEEP_TIMEOUT_S - wait_s) / 4)
            again = time.monotonic() + pause
            self._loop.set_timer((live.run.id, "sweep"), again, partial(self._sweep, live))
            return
        if left:
            self._give_up(live)
        self._conclude(live)

    def _give_up(self, live: LiveRun) -> None:
        try:
            stuck = self._orphans.give_up() if live.lineage is None else live.lineage.describe_survivors()
            stuck += [describe_process(pid) for pid in (live.cgroup.list_pids() if live.cgroup is not None else [])]
        except OSError as error:
            stuck = [f"cannot list them: {error.strerror}"]
        named = ", ".join(dict.fromkeys(stuck)) or "too many"
        log(f"{live.run.name} cannot kill all of its processes; leaving alone: {named}")

    def _kill_orphans(self) -> bool:
        left = self._orphans.kill_all()
        if left:
            self._orphans.kill_descendants()
        return left

    def _try(self, live: LiveRun, kill: Callable[[], bool]) -> bool:
        """Kill, and return whether processes are left."""
        try:
            return kill()
        except OSError as error:
            # Most likely out of descriptors: count it as "some are left", and let the time limit conclude the run.
            log(f"{live.run.name} cannot find its remaining processes: {error.strerror}")
            return True

    def _conclude(self, live: LiveRun) -> None:
        self._loop.cancel_timer((live.run.id, "sweep"))
        del self._sweeping[live.run.id]
        facts = live.reap()
        self._confinement.judge_oom(live, facts)
        self._confinement.remove_cgroup(live.run, live.cgroup)
        self._orphans.drop_leader(live.pid)
        self._done(live, facts)
        self._orphans.reap()  # waitid reported the leader's zombie and not those behind it
