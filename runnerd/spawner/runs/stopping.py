"""Has a run ended: told why, signalled, killed when its time is up.

* An asked-for stop is on disk before the first byte or signal, and the deadline counts from when it was asked for.
* Asked again, it can only end sooner: the first reason stays, and nothing is told or signalled twice.
* Nothing here waits: a run has a second to acknowledge what it was told, and the signal comes then in any case. A
  later spawner that finds it unsent sends it.
"""

from __future__ import annotations

import signal
import time
from functools import partial

from runnerd.spawner.io.loop import Loop
from runnerd.spawner.runs.announce import Teller
from runnerd.spawner.runs.intents import Intents
from runnerd.spawner.runs.live_run import Watch
from runnerd.spawner.runs.records import utc_now


class Stopping:
    def __init__(self, *, loop: Loop, teller: Teller, intents: Intents) -> None:
        self._loop = loop
        self._teller = teller
        self._intents = intents

    def resume(self, watch: Watch) -> None:
        """Keep what was promised about a run's end, also by an earlier spawner."""
        run = watch.run
        if run.phase == "killing":
            self.kill(watch)
        elif run.phase == "stopping":
            self._loop.timer((run.id, "kill"), run.kill_at or 0.0, partial(self.kill, watch))
            if run.signal_to_send is not None:
                self._told(watch, False)
        elif run.runtime_at is not None:
            # What is told has the child leave its state alone: the daemon says what a run was that took too long.
            expire = partial(self.stop, watch, reason="timeout", tell="relinquish")
            self._loop.timer((run.id, "runtime"), run.runtime_at, expire)

    def stop(
        self,
        watch: Watch,
        *,
        reason: str,
        number: int | None = None,
        timeout_s: float | None = None,
        tell: str | None = None,
    ) -> None:
        """Ask the group to end, and SIGKILL all of it after `timeout_s`; 0 is at once."""
        run = watch.run
        if watch.sweep_until is not None or run.phase == "killing":
            return
        kill_at = time.monotonic() + (run.stop_timeout_s if timeout_s is None else timeout_s)
        first = run.phase != "stopping"
        if first:
            run.stop = {"reason": reason, "at": utc_now()}
            self._loop.cancel((run.id, "runtime"))
        elif run.kill_at is not None and run.kill_at <= kill_at:
            return
        run.kill_at = kill_at
        if kill_at <= time.monotonic():
            self.kill(watch)
            return
        self._loop.timer((run.id, "kill"), kill_at, partial(self.kill, watch))
        if first:
            self._ask(watch, number or run.stop_signal, tell)
        else:
            self._teller.save(run)

    def _ask(self, watch: Watch, number: int, tell: str | None) -> None:
        run = watch.run
        if tell is not None and self._intents.connected(run.id):
            run.signal_to_send = number
            self._teller.turn(run, "stopping", "changed", save=True)
            self._intents.tell(run.id, tell, partial(self._told, watch))
            return
        if tell is not None:
            run.stop = {**(run.stop or {}), "told": False}
        self._teller.turn(run, "stopping", "changed", save=True)
        _signal(watch, number)

    def _told(self, watch: Watch, acknowledged: bool) -> None:
        """It is known whether the run was told why: now the signal, unless it is past that."""
        run = watch.run
        number, run.signal_to_send = run.signal_to_send, None
        if number is not None and watch.sweep_until is None:
            _signal(watch, number)
        run.stop = {**(run.stop or {}), "told": acknowledged}
        self._teller.turn(run, run.phase, "changed", save=True)

    def kill(self, watch: Watch) -> None:
        run = watch.run
        self._loop.cancel((run.id, "kill"))
        run.signal_to_send = None
        if run.phase != "killing":
            self._teller.turn(run, "killing", "changed", save=True)
        watch.kill()


def _signal(watch: Watch, number: int) -> None:
    watch.remember()  # the signal may end the leader, which alone ties the rest together
    watch.signal(number)
    watch.signal(signal.SIGCONT)  # a stopped process would sleep through the rest
