"""The verbs of the protocol: reads a request's fields, has it done, answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from runnerd import __version__
from runnerd.spawner.io.messages import Fields, Launch, bad
from runnerd.spawner.runs.intents import INTENTS
from runnerd.spawner.runs.records import Run
from runnerd.spawner.runs.table import Runs

Reply = Callable[[object], None]


class Requests:
    def __init__(
        self, runs: Runs, *, limits: Callable[[], dict[str, object]], boot_id: str, go: Callable[[], None]
    ) -> None:
        self._runs = runs
        self._boot_id = boot_id
        self._limits = limits  # what `Kernel.limits` gives
        self._go = go  # has the spawner end once this turn of its loop is over
        self._since = time.monotonic()
        self._verbs: dict[str, Callable[[Fields, Reply], None]] = {
            "ping": self._ping,
            "spawn": self._spawn,
            "stop": self._stop,
            "signal": self._signal,
            "list": self._list,
            "forget": self._forget,
            "retire": self._retire,
        }

    def do(self, request: Fields, reply: Reply) -> None:
        """Have it done; `reply` is called once, now or later, unless this raises Refused."""
        verb = self._verbs.get(request.text("op") or "")
        if verb is None:
            raise bad(f"there is no op {request.raw('op')!r}; there are {', '.join(self._verbs)}")
        verb(request, reply)

    def hello(self) -> dict[str, object]:
        told = {"event": "hello", "version": __version__, "pid": os.getpid(), **self._limits()}
        return {**told, "boot_id": self._boot_id, "records": self._records()}

    def _records(self) -> list[object]:
        return [run.seen() for run in self._runs.all()]

    def _run(self, request: Fields) -> Run:
        return self._runs.get(request.key(), request.attempt())

    def _ping(self, request: Fields, reply: Reply) -> None:
        uptime_s = round(time.monotonic() - self._since, 3)
        reply({"version": __version__, "pid": os.getpid(), "uptime_s": uptime_s, "runs": self._runs.live})

    def _spawn(self, request: Fields, reply: Reply) -> None:
        self._runs.spawn(Launch(request.inner("spec")), lambda run: reply(run.seen()))

    def _stop(self, request: Fields, reply: Reply) -> None:
        reason, number = request.need_text("reason"), request.signal("signal")
        timeout_s, tell = request.seconds("timeout_s"), request.text("tell")
        if tell is not None and tell not in INTENTS:
            raise bad(f"tell must be one of {', '.join(INTENTS)}")
        run = self._run(request)
        self._runs.stop(run, reason=reason, number=number, timeout_s=timeout_s, tell=tell)
        reply(run.seen())

    def _signal(self, request: Fields, reply: Reply) -> None:
        number = request.signal("signal")
        if number is None:
            raise bad("signal must be a signal's number")
        run = self._run(request)
        self._runs.signal(run, number)
        reply(run.seen())

    def _list(self, request: Fields, reply: Reply) -> None:
        reply(self._records())

    def _forget(self, request: Fields, reply: Reply) -> None:
        self._runs.forget(self._run(request))
        reply(True)

    def _retire(self, _: Fields, reply: Reply) -> None:
        """Make room for a newer spawner. With a run we stay: whoever is its parent sees how it ends, and only he."""
        idle = self._runs.live == 0
        reply(idle)
        if idle:
            self._go()
