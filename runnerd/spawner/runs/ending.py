"""Concludes a run whose leader has exited: ends what it left behind, reaps it, and says how it ended.

A leader that exits stays a zombie until all it left is gone: until then its numbers are its own, and nobody is told.
That is bounded: what does not die within SWEEP_LIMIT_S is named in the log and left alone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.proc.orphans import Strays
from runnerd.spawner.proc.processes import describe
from runnerd.spawner.runs.confinement import Kernel
from runnerd.spawner.runs.intents import Intents
from runnerd.spawner.runs.live_run import Watch

SWEEP_LIMIT_S = 5.0
_AGAIN_S = 0.01
_AGAIN_AT_MOST_S = 0.25


class Ending:
    """`done` is called with each run that is at its end, and with how its leader exited."""

    def __init__(
        self,
        *,
        loop: Loop,
        kernel: Kernel,
        strays: Strays,
        intents: Intents,
        done: Callable[[Watch, dict[str, object]], None],
    ) -> None:
        self._loop = loop
        self._kernel = kernel
        self._strays = strays
        self._intents = intents
        self._done = done
        self._sweeping: dict[tuple[str, int], Watch] = {}

    def begin(self, watch: Watch) -> None:
        """Its leader has exited."""
        run = watch.run
        for timer in ("kill", "runtime", "output", "kin"):
            self._loop.cancel((run.id, timer))
        watch.sweep_until = time.monotonic() + SWEEP_LIMIT_S
        self._intents.drop(run.id)
        self._sweeping[run.id] = watch
        if watch.child:
            watch.signal(signal.SIGKILL)  # at once to the whole group: nobody in it can fork away from that
        self._sweep(watch)

    def on_child(self) -> None:
        """A child of ours has exited. What it had is ours from this instant on, and may be forking."""
        self._strays.reap()
        waiting = [watch for watch in self._sweeping.values() if watch.kin is None]
        if waiting and not self._try(waiting[0], self._strays.strike):
            for watch in waiting:
                if not self._try(watch, watch.kill_cgroup):
                    self._conclude(watch)

    def _sweep(self, watch: Watch) -> None:
        """Until nothing is left. Killed processes need a moment to go, so this comes back."""
        left_in_cgroup = self._try(watch, watch.kill_cgroup)
        left = self._try(watch, self._strike if watch.kin is None else watch.kin.sweep) or left_in_cgroup
        wait_s = (watch.sweep_until or 0.0) - time.monotonic()
        if left and wait_s > 0:
            # Soon at first, when it matters to whoever waits for the run's end.
            pause = min(_AGAIN_AT_MOST_S, _AGAIN_S + (SWEEP_LIMIT_S - wait_s) / 4)
            again = time.monotonic() + pause
            self._loop.timer((watch.run.id, "sweep"), again, partial(self._sweep, watch))
            return
        if left:
            self._give_up(watch)
        self._conclude(watch)

    def _give_up(self, watch: Watch) -> None:
        try:
            stuck = self._strays.give_up() if watch.kin is None else watch.kin.give_up()
            stuck += [describe(pid) for pid in (watch.cgroup.members() if watch.cgroup is not None else [])]
        except OSError as error:
            stuck = [f"cannot tell which: {error.strerror}"]
        named = ", ".join(dict.fromkeys(stuck)) or "too many"
        log(f"{watch.run.name} ends with processes left that do not die: {named}")

    def _strike(self) -> bool:
        left = self._strays.strike()
        if left:
            self._strays.strike_below()
        return left

    def _try(self, watch: Watch, end_what_is_left: Callable[[], bool]) -> bool:
        """Whether something is left."""
        try:
            return end_what_is_left()
        except OSError as error:
            # Out of descriptors, most likely: not to be taken for "nothing left", and no reason never to conclude.
            log(f"{watch.run.name} cannot sweep: {error.strerror}")
            return True

    def _conclude(self, watch: Watch) -> None:
        self._loop.cancel((watch.run.id, "sweep"))
        del self._sweeping[watch.run.id]
        facts = watch.reap()
        self._kernel.judge(watch, facts)
        self._kernel.release(watch.run, watch.cgroup)
        self._strays.drop_leader(watch.pid)
        self._done(watch, facts)
        self._strays.reap()  # a leader's zombie hid those that came after it
