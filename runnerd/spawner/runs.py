"""The runs: what happens to them, and what is promised about them.

* A run is known by (key, attempt); what is known is never started again.
* Nothing runs before its identity is on disk; an asked-for stop is on disk before the first signal.
* A leader that exits stays a zombie until its session is swept: until then its numbers are its own.
* Every change is published, and a run ends in exactly one `exited`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.identity import Boot
from runnerd.spawner.launch_process import Child, Launcher
from runnerd.spawner.log import log
from runnerd.spawner.loop import READ, Loop
from runnerd.spawner.output import trim
from runnerd.spawner.records import RecordStore, Run, utc_now
from runnerd.spawner.request import Launch, Refused
from runnerd.spawner.watch import Watch, exit_facts

OUTPUT_LOOK_S = 5.0
SWEEP_AGAIN_S = 0.01
SWEEP_LIMIT_S = 5.0


class Runs:
    def __init__(
        self,
        *,
        loop: Loop,
        store: RecordStore,
        launcher: Launcher,
        boot: Boot,
        publish: Callable[[str, Run], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._launcher = launcher
        self._boot = boot
        self._publish = publish
        self._runs: dict[tuple[str, int], Run] = {}
        self._live: dict[tuple[str, int], Watch] = {}
        self._leaders: set[int] = set()  # pids that only their own path may reap

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
        for run in self._store.load():
            self._runs[run.id] = run
            if run.phase == "exited":
                continue
            watch = Watch.find(run, self._boot)
            if watch is None:
                run.exit = exit_facts()
                self._end(run)
            else:
                self._resume(watch)

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
            child = self._launcher.fork(launch)
        except OSError as error:
            message = f"cannot start: cannot fork: {error.strerror}"
            run.error = {"stage": "fork", "errno": error.errno, "message": message}
            self._runs[run.id] = run
            self._end(run)
            reply(run)
            return
        watch = self._hold(run, child)
        watch.waiting.append(reply)
        self._leaders.add(child.pid)
        self._resume(watch)
        self._loop.watch(child.status_fd, READ, partial(self._on_status, watch, child.status_fd))

    def _hold(self, run: Run, child: Child) -> Watch:
        """Put its identity on disk, then let it go; if that cannot be done, nothing runs."""
        ticks = child.start_ticks
        try:
            if ticks is None:
                raise OSError(None, "its start time cannot be read from /proc")
            run.pid, run.start_ticks = child.pid, ticks
            self._store.write(run)
        except OSError as error:
            child.abandon()
            message = f"cannot start run {run.key}: cannot record it: {error.strerror}"
            raise Refused("could-not-record", message) from None
        child.go()
        self._runs[run.id] = run
        return Watch.of(run, child, ticks)

    def _on_status(self, watch: Watch, status_fd: int) -> None:
        if not watch.read_status():
            return
        self._loop.unwatch(status_fd)
        os.close(status_fd)
        if watch.run.error is not None:
            return  # it is exiting: the answer is given when it is gone
        if watch.run.phase == "starting":
            # Not written: a record that says `starting` is taken over just as one that says `running`.
            self._turn(watch.run, "running", "started")
        self._answer(watch)

    def _answer(self, watch: Watch) -> None:
        waiting, watch.waiting = watch.waiting, []
        for reply in waiting:
            reply(watch.run)

    # --- watch -------------------------------------------------------------------------------------------

    def _resume(self, watch: Watch) -> None:
        run = watch.run
        self._live[run.id] = watch
        self._loop.watch(watch.pidfd, READ, partial(self._on_leader_exit, watch))
        if run.phase == "starting" and not watch.child:
            run.phase = "running"
        if run.phase == "killing":
            self._kill(watch)
        elif run.phase == "stopping":
            self._loop.timer((run.id, "kill"), run.kill_at or 0.0, partial(self._kill, watch))
        elif run.runtime_at is not None:
            expire = partial(self.stop, run, reason="timeout")
            self._loop.timer((run.id, "runtime"), run.runtime_at, expire)
        if run.output_max_bytes is not None:
            self._look_at_output_later(watch)

    def _look_at_output_later(self, watch: Watch) -> None:
        when = time.monotonic() + OUTPUT_LOOK_S
        self._loop.timer((watch.run.id, "output"), when, partial(self._look_at_output, watch))

    def _look_at_output(self, watch: Watch) -> None:
        run = watch.run
        try:
            if trim(run.output, run.output_max_bytes or 0):
                log(f"key={run.key} attempt={run.attempt} output trimmed to {run.output_max_bytes} bytes")
        except OSError as error:
            log(f"key={run.key} attempt={run.attempt} cannot trim {run.output}: {error.strerror}")
            return  # gone, or not ours: looking again would say the same
        self._look_at_output_later(watch)

    # --- stop --------------------------------------------------------------------------------------------

    def stop(self, run: Run, *, reason: str, number: int | None = None, timeout_s: float | None = None) -> None:
        """Ask the group to end, and SIGKILL it after `timeout_s`; 0 is at once. Asked again, it can only get sooner."""
        watch = self._live.get(run.id)
        if watch is None or watch.sweep_until is not None or run.phase == "killing":
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
            self._kill(watch)
            return
        self._loop.timer((run.id, "kill"), kill_at, partial(self._kill, watch))
        if first:
            self._turn(run, "stopping", "changed", save=True)
            watch.signal(number or run.stop_signal)
            watch.signal(signal.SIGCONT)  # a stopped process would sleep through the rest
        else:
            self._save(run)

    def signal(self, run: Run, number: int) -> None:
        watch = self._live.get(run.id)
        if watch is not None:
            watch.signal(number)

    def _kill(self, watch: Watch) -> None:
        self._loop.cancel((watch.run.id, "kill"))
        if watch.run.phase != "killing":
            self._turn(watch.run, "killing", "changed", save=True)
        watch.signal(signal.SIGKILL)
        watch.sweep()

    # --- end ---------------------------------------------------------------------------------------------

    def _on_leader_exit(self, watch: Watch) -> None:
        self._loop.unwatch(watch.pidfd)
        while watch.status_fd is not None:  # both can be ready at once, and what it told decides how this ends
            self._on_status(watch, watch.status_fd)
        for timer in ("kill", "runtime", "output"):
            self._loop.cancel((watch.run.id, timer))
        watch.sweep_until = time.monotonic() + SWEEP_LIMIT_S
        self._sweep(watch)

    def _sweep(self, watch: Watch) -> None:
        """Until nothing is left of its session. Killed processes need a moment to go, so this comes back."""
        left = self._sweep_once(watch)
        if left and time.monotonic() < (watch.sweep_until or 0.0):
            again = time.monotonic() + SWEEP_AGAIN_S
            self._loop.timer((watch.run.id, "sweep"), again, partial(self._sweep, watch))
            return
        if left:
            log(f"key={watch.run.key} attempt={watch.run.attempt} {left} processes of it do not die")
        self._conclude(watch)

    def _sweep_once(self, watch: Watch) -> int:
        try:
            return watch.sweep()
        except OSError as error:
            # Out of descriptors, most likely: not to be taken for "nothing left", and no reason never to conclude.
            log(f"key={watch.run.key} attempt={watch.run.attempt} cannot sweep: {error.strerror}")
            return 1

    def _conclude(self, watch: Watch) -> None:
        run = watch.run
        facts = watch.reap()
        self._leaders.discard(watch.pid)
        del self._live[run.id]
        if run.error is None:
            run.exit = facts
        self._end(run)
        self._answer(watch)
        self.reap_orphans()  # a leader's zombie hid those that came after it

    def _end(self, run: Run) -> None:
        self._turn(run, "exited", "exited", save=True)

    def reap_orphans(self) -> None:
        """Reap what came to us as subreaper. Stops at a leader: it is swept first, and then we come back here."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._leaders:
                return
            os.waitpid(found.si_pid, 0)

    # --- telling -----------------------------------------------------------------------------------------

    def _turn(self, run: Run, phase: str, event: str, *, save: bool = False) -> None:
        run.phase = phase
        if save:
            self._save(run)
        log(_story(run))
        self._publish(event, run)

    def _save(self, run: Run) -> None:
        """A full disk must not keep a run from ending; a later spawner then finds the older record."""
        try:
            self._store.write(run)
        except OSError as error:
            log(f"key={run.key} attempt={run.attempt} cannot write its record: {error.strerror}")


def _story(run: Run) -> str:
    words = f"key={run.key} attempt={run.attempt} phase={run.phase} pid={run.pid}"
    if run.stop is not None:
        words += f" reason={run.stop.get('reason')}"
    if run.error is not None:
        words += f" error={run.error.get('message')!r}"
    if run.exit is not None:
        words += f" code={run.exit.get('code')} signal={run.exit.get('signal')}"
    return words
