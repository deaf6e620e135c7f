"""Plays a plan: creates the runs, breaks what the plan breaks, keeps the daemon up, and waits until all is settled."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

from tests.chaos.chaos_checks import ENDED
from tests.chaos.chaos_host import ChaosHost
from tests.chaos.chaos_plan import Cancel, Death, Plan, Wanted, Window
from tests.kits.fault_proxy import DAEMON, FaultProxy, Rule

TICK_S = 0.05
LOOK_S = 0.4
TROUBLED_S = 20.0  # in which all may be settled after the last fault was due, some of which last
SETTLED_S = 120.0  # after all faults are gone
AGAIN_S = 0.5  # before a daemon that ended by itself is started again


@dataclass
class Playing:
    """One run of the round under way."""

    wanted: Wanted
    id: str
    mark: str
    cancel: Cancel | None
    ready_at: float | None = None  # when its cancellation is due, once it is as far as that wants
    asked: bool = False
    begun_before: bool = True

    def begun(self) -> bool:
        return os.path.exists(self.mark)


class Trigger:
    """Kills the daemon from the proxy's thread, at the call its life is to end with."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._lock = threading.Lock()
        self._death: Death | None = None
        self._pid = 0
        self._seen = 0
        self._deadly = 0
        proxy.on_call = self._on_call

    def arm(self, death: Death | None, pid: int) -> None:
        with self._lock:
            self._death = death if death is not None and death.what == "call" else None
            self._pid, self._seen, self._deadly = pid, 0, 0

    def _on_call(self, n: int, who: str, method: str, path: str, *, when: str) -> None:
        with self._lock:
            death = self._death
            if death is None or who != DAEMON or not re.search(death.path, path):
                return
            if when == "before":
                self._seen += 1
                if self._seen == death.n:
                    self._deadly = n
            if n == self._deadly and when == death.when:
                self._death = None
                os.kill(self._pid, signal.SIGKILL)


@dataclass
class Round:
    """`play` returns what was waited for in vain, or None."""

    plan: Plan
    host: ChaosHost
    proxy: FaultProxy
    trigger: Trigger
    exits: list[str] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    spawner_killed: bool = False
    runs: list[Playing] = field(default_factory=list)

    # --- the round --------------------------------------------------------------------------------------------------

    def play(self) -> str | None:
        self._lives = list(self.plan.lives)
        self._document: dict[str, object] = {}
        self._rules: dict[int, Rule] = {}
        self._start_again_at: float | None = None
        self._stopped = False
        self._next_look = 0.0
        self._missing: str | None = "the first look"
        self._phases: dict[str, str] = {}
        self._phase_kills = [kill for kill in self.plan.spawner if kill.phase]
        self.host.turn_page()
        self.proxy.forget_calls()
        self._begin_life()
        self._create()
        self._t0 = time.monotonic()
        self._timed = sorted(self._actions(), key=lambda action: action[0])
        self._go_on(max((at for at, _ in self._timed), default=0.0) + TROUBLED_S)
        self._calm_down()
        return self._go_on(SETTLED_S)

    def _go_on(self, limit_s: float) -> str | None:
        """Until all is settled or the time is over; what was waited for then."""
        until = time.monotonic() + limit_s
        while (missing := self._step()) is not None and time.monotonic() < until:
            time.sleep(TICK_S)
        return missing

    def _create(self) -> None:
        for number, wanted in enumerate(self.plan.runs):
            mark = str(self.host.marks / f"{self.plan.name.replace(' ', '-')}-{time.monotonic_ns()}-{number}")
            body = {"parameters": {"mark": mark}, "name": f"{wanted.kind}-{number}"}
            path = f"/deployments/{self.host.ids[wanted.kind]}/create_flow_run"
            run = self.host.api.call("POST", path, body)
            self.runs.append(Playing(wanted, run["id"], mark, wanted.cancel))

    def _actions(self) -> list[tuple[float, Callable[[], None]]]:
        """Everything that has its time."""
        found: list[tuple[float, Callable[[], None]]] = []
        for window in self.plan.windows:
            found.append((window.at_s, partial(self._open, window)))
            found.append((window.at_s + window.for_s, partial(self._close, window)))
        found += [(kill.at_s, self._kill_spawner) for kill in self.plan.spawner if not kill.phase]
        return found

    def _step(self) -> str | None:
        """One look at everything; what is still to come, None when nothing is."""
        now = time.monotonic()
        while self._timed and self._timed[0][0] <= now - self._t0:
            self._timed.pop(0)[1]()
        self._keep_daemon(now)
        self._cancel(now)
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._phases = {} if self._stopped else self.host.phases()
            self._kill_spawner_by_phase()
            self._missing = self._look()
        return self._missing

    def _look(self) -> str | None:
        if not self.host.alive():
            return "the daemon to be started again"
        chosen = {"flow_runs": {"id": {"any_": [run.id for run in self.runs]}}, "limit": 200}
        states = {run["id"]: run["state"]["type"] for run in self.host.api.call("POST", "/flow_runs/filter", chosen)}
        going = [f"{run.wanted.kind} {run.id} {states.get(run.id)}" for run in self.runs if states[run.id] not in ENDED]
        if going:
            return f"the end of {', '.join(going)}"
        if self._phases:
            return f"the daemon to be done with {self._phases}"
        status = self.host.status()
        if status is None or status["runs"] or status["api"]["state"] != "ok":
            return f"the daemon to be well: {status and status['api']}"
        return f"the spawner to forget {self.host.records()}" if self.host.records() else None

    # --- the daemon -------------------------------------------------------------------------------------------------

    def _begin_life(self) -> None:
        """Arm the next death, in the daemon that runs or in a new one."""
        self._death = self._lives.pop(0) if self._lives else None
        wanted: dict[str, object] = {"id": time.monotonic_ns()}
        if self._death is not None and self._death.what == "write":
            wanted |= {"write": self._death.n, "when": self._death.when}
        self._document = {**wanted, **{k: v for k, v in self._document.items() if k in ("full", "jump_s")}}
        self.host.plan(self._document)
        if not self.host.alive():
            self.host.launch()
        assert self.host.process is not None
        self._born = time.monotonic()
        self._stopped = False
        self.trigger.arm(self._death, self.host.process.pid)

    def _keep_daemon(self, now: float) -> None:
        death = self._death
        if self.host.alive():
            if death is not None and death.what == "time" and now - self._born >= death.at_s:
                self.host.send(signal.SIGKILL)
            return
        if self._start_again_at is None:
            assert self.host.process is not None
            status = self.host.process.wait()
            if status == -signal.SIGKILL and death is not None:
                self.injected.append(f"daemon killed at a {death.what}")
                self._start_again_at = now
            else:
                self.exits.append(f"status {status}; its log ends:\n{self.host.said()[-1500:]}")
                self._start_again_at = now + AGAIN_S
        if now >= self._start_again_at:
            self._start_again_at = None
            self._begin_life()

    def _kill_spawner(self) -> None:
        if self.host.kill_spawner():
            self.spawner_killed = True
            self.injected.append("spawner killed")

    def _kill_spawner_by_phase(self) -> None:
        seen = set(self._phases.values())
        for kill in [kill for kill in self._phase_kills if kill.phase in seen]:
            self._phase_kills.remove(kill)
            self._kill_spawner()

    # --- windows ------------------------------------------------------------------------------------------------------

    def _open(self, window: Window) -> None:
        match window.what:
            case "api":
                self._rules[id(window)] = self._rule(window)
            case "refuse":
                self.proxy.refuse()
            case "full":
                self._say(full=True)
            case "jump":
                self._say(jump_s=window.jump_s)
            case "stop":
                self.host.send(signal.SIGSTOP)
                self._stopped = self.host.alive()
        if window.what != "api":
            self.injected.append(window.what)

    def _close(self, window: Window) -> None:
        match window.what:
            case "api":
                rule = self._rules.pop(id(window))
                self.proxy.remove(rule)
                self.injected += [str(f"api {rule.fault.kind} {rule.fault.status or ''}").strip()] * rule.struck
            case "refuse":
                self.proxy.listen()
            case "full":
                self._say(full=False)
            case "jump":
                self._say(jump_s=0.0)
            case "stop":
                self.host.send(signal.SIGCONT)
                self._stopped = False

    def _rule(self, window: Window) -> Rule:
        fault = window.fault
        assert fault is not None
        if fault.retry_after == "date":
            later = datetime.now(UTC) + timedelta(seconds=2)
            fault = type(fault)(fault.kind, fault.status, format_datetime(later, usegmt=True), fault.seconds)
        return self.proxy.add(fault, path=window.path, who=window.who, first=window.first, count=window.count)

    def _say(self, **what: object) -> None:
        self._document = {**self._document, **what}
        self.host.plan(self._document)

    def _calm_down(self) -> None:
        """No fault any more, nor one to come; what was not over when all was settled has done its work."""
        self._timed, self._phase_kills, self._lives, self._death = [], [], [], None
        for window in self.plan.windows:
            if window.what != "api" or id(window) in self._rules:
                self._close(window)
        self.trigger.arm(None, 0)
        self._document = {}
        self.host.plan({})
        self.proxy.clear()
        self._next_look, self._missing = 0.0, "the next look"

    # --- cancelling ---------------------------------------------------------------------------------------------------

    def _cancel(self, now: float) -> None:
        for run in self.runs:
            if run.cancel is None or run.asked:
                continue
            if run.ready_at is None and self._far_enough(run, run.cancel.when):
                run.ready_at = now + run.cancel.delay_s
            if run.ready_at is not None and now >= run.ready_at:
                run.begun_before = run.begun()
                run.asked = self._ask(run, run.cancel.how)
                if not run.asked:
                    run.ready_at = now + LOOK_S

    def _far_enough(self, run: Playing, when: str) -> bool:
        return when == "created" or run.begun() or (when == "claimed" and run.id in self._phases)

    def _ask(self, run: Playing, how: str) -> bool:
        """Ask for its end; whether that was accepted, or came too late."""
        if how == "api":
            self.host.api.cancel(run.id)
            return self.host.api.state(run.id) in ("CANCELLING", *ENDED)
        if self._stopped or not self.host.alive():
            return False
        return self.host.ctl("cancel", run.id, *(["--now"] if how == "now" else [])).returncode == 0
