"""Stop a run: send the intent, then the stop signal, then SIGKILL at the deadline.

* A stop is on disk before the intent or signal is sent, and its deadline counts from the request.
* A second request can only bring the deadline forward: the first reason stays, and no intent or signal is sent twice.
* No method waits: the signal is sent when the run acknowledges the intent, or after a second without that. A later
  spawner that adopts the run in between sends the signal.
"""

from __future__ import annotations

import signal
import time
from functools import partial

from runnerd.spawner.io.loop import Loop
from runnerd.spawner.runs.announce import Announcer
from runnerd.spawner.runs.intents import IntentServer
from runnerd.spawner.runs.live_run import LiveRun
from runnerd.spawner.runs.records import utc_now


class Stopping:
    """Stops runs: by request, and at the end of their runtime_max."""

    def __init__(self, *, loop: Loop, announcer: Announcer, intents: IntentServer) -> None:
        self._loop = loop
        self._announcer = announcer
        self._intents = intents

    def resume(self, live: LiveRun) -> None:
        """Set the timers for the run's end, and go on with a stop that an earlier spawner began."""
        run = live.run
        if run.phase == "killing":
            self.kill(live)
        elif run.phase == "stopping":
            self._loop.set_timer((run.id, "kill"), run.kill_at or 0.0, partial(self.kill, live))
            if run.signal_to_send is not None:
                self._on_answer(live, False)
        elif run.runtime_at is not None:
            # "relinquish" has the run's process leave its state to the daemon, which reports the timeout.
            expire = partial(self.stop, live, reason="timeout", intent="relinquish")
            self._loop.set_timer((run.id, "runtime"), run.runtime_at, expire)

    def stop(
        self,
        live: LiveRun,
        *,
        reason: str,
        signal_number: int | None = None,
        timeout_s: float | None = None,
        intent: str | None = None,
    ) -> None:
        """Signal the group to end, and SIGKILL all processes after `timeout_s` seconds (0: at once).

        `signal_number` is the signal (default: the run's stop signal), `intent` the intent that is sent before.
        """
        run = live.run
        if live.sweep_until is not None or run.phase == "killing":
            return
        kill_at = time.monotonic() + (run.stop_timeout_s if timeout_s is None else timeout_s)
        first = run.phase != "stopping"
        if first:
            run.stop = {"reason": reason, "at": utc_now()}
            self._loop.cancel_timer((run.id, "runtime"))
        elif run.kill_at is not None and run.kill_at <= kill_at:
            return
        run.kill_at = kill_at
        if kill_at <= time.monotonic():
            self.kill(live)
            return
        self._loop.set_timer((run.id, "kill"), kill_at, partial(self.kill, live))
        if first:
            self._send_intent_and_signal(live, signal_number or run.stop_signal, intent)
        else:
            self._announcer.save_record(run)

    def _send_intent_and_signal(self, live: LiveRun, number: int, intent: str | None) -> None:
        run = live.run
        if intent is not None and self._intents.is_connected(run.id):
            run.signal_to_send = number
            self._announcer.change_phase(run, "stopping", "changed", save=True)
            self._intents.send_intent(run.id, intent, partial(self._on_answer, live))
            return
        if intent is not None:
            run.stop = {**(run.stop or {}), "told": False}
        self._announcer.change_phase(run, "stopping", "changed", save=True)
        _signal(live, number)

    def _on_answer(self, live: LiveRun, acknowledged: bool) -> None:
        """Send the signal after the intent, unless the run is being killed or has exited."""
        run = live.run
        number, run.signal_to_send = run.signal_to_send, None
        if number is not None and live.sweep_until is None:
            _signal(live, number)
        run.stop = {**(run.stop or {}), "told": acknowledged}
        self._announcer.change_phase(run, run.phase, "changed", save=True)

    def kill(self, live: LiveRun) -> None:
        """SIGKILL all processes of the run."""
        run = live.run
        self._loop.cancel_timer((run.id, "kill"))
        run.signal_to_send = None
        if run.phase != "killing":
            self._announcer.change_phase(run, "killing", "changed", save=True)
        live.kill_tree()


def _signal(live: LiveRun, number: int) -> None:
    live.record_members()  # the signal may end the leader, by which the other processes are recognised
    live.send_signal(number)
    live.send_signal(signal.SIGCONT)  # a stopped process does not handle the signal
