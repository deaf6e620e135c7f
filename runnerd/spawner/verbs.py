"""Answer the requests of the protocol, a method a verb: read the fields, act on the run table, reply."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from runnerd import __version__
from runnerd.spawner.io.messages import Fields, Launch, RequestRefused, bad_request, shown
from runnerd.spawner.runs.intents import INTENTS
from runnerd.spawner.runs.records import ProcessRecord
from runnerd.spawner.runs.starts import Outcome
from runnerd.spawner.runs.table import RunTable

Reply = Callable[[object], None]


class Verbs:
    """`describe` says what enforces the runs' limits, as whom runs may be started, and which code this is.

    `end_loop` ends the spawner after this round of its loop.
    """

    def __init__(
        self, runs: RunTable, *, describe: Callable[[], dict[str, object]], boot_id: str, end_loop: Callable[[], None]
    ) -> None:
        self._runs = runs
        self._boot_id = boot_id
        self._describe = describe
        self._end_loop = end_loop
        self._retired = False
        self._started_at = time.monotonic()
        self._verbs: dict[str, Callable[[Fields, Reply], None]] = {
            "ping": self._ping,
            "spawn": self._spawn,
            "stop": self._stop,
            "signal": self._signal,
            "list": self._list,
            "forget": self._forget,
            "retire": self._retire,
        }

    def answer(self, request: Fields, reply: Reply) -> None:
        """Do what the request asks; `reply` is called once, now or later, unless this raises RequestRefused.

        `reply` gets the result, or a RequestRefused where that is known only later.

        After `retire` nothing is done, and `reply` is not called.
        """
        if self._retired:
            # Read in the round that retire ends: a run started now would have no parent to read its exit status. The
            # client reads the end of the connection instead of an answer, and asks the next spawner.
            return
        verb = self._verbs.get(request.text("op") or "")
        if verb is None:
            raise bad_request(f"there is no op {shown(request.raw('op'))}; there are {', '.join(self._verbs)}")
        verb(request, reply)

    def make_hello(self) -> dict[str, object]:
        """Make the first message for a new client: version, build, limits, users and all records."""
        can = {"forks": True, "stdin": True, "waits": True}
        about = {"event": "hello", "version": __version__, "pid": os.getpid(), **can, **self._describe()}
        return {**about, "boot_id": self._boot_id, "records": self._records()}

    def _records(self) -> list[object]:
        return [run.to_wire() for run in self._runs.all()]

    def _find_run(self, request: Fields) -> ProcessRecord:
        return self._runs.get(request.key(), request.attempt())

    def _ping(self, request: Fields, reply: Reply) -> None:
        uptime_s = round(time.monotonic() - self._started_at, 3)
        reply({"version": __version__, "pid": os.getpid(), "uptime_s": uptime_s, "runs": self._runs.live_count})

    def _spawn(self, request: Fields, reply: Reply) -> None:
        def answer(outcome: Outcome) -> None:
            reply(outcome if isinstance(outcome, RequestRefused) else outcome.to_wire())

        self._runs.spawn(Launch(request.inner("spec")), answer)

    def _stop(self, request: Fields, reply: Reply) -> None:
        reason, signal_number = request.required_name("reason"), request.signal("signal")
        timeout_s, intent = request.seconds("timeout_s"), request.name("tell")
        if intent is not None and intent not in INTENTS:
            raise bad_request(f"tell must be one of {', '.join(INTENTS)}")
        run = self._find_run(request)
        self._runs.stop(run, reason=reason, signal_number=signal_number, timeout_s=timeout_s, intent=intent)
        reply(run.to_wire())

    def _signal(self, request: Fields, reply: Reply) -> None:
        number = request.signal("signal")
        if number is None:
            raise bad_request("signal must be a signal's number")
        run = self._find_run(request)
        self._runs.send_signal(run, number)
        reply(run.to_wire())

    def _list(self, request: Fields, reply: Reply) -> None:
        reply(self._records())

    def _forget(self, request: Fields, reply: Reply) -> None:
        self._runs.forget(self._find_run(request))
        reply(True)

    def _retire(self, _: Fields, reply: Reply) -> None:
        """End this spawner for a newer one, unless a run lives: only the parent of a run can read its exit status."""
        idle = self._runs.live_count == 0
        reply(idle)
        if idle:
            self._retired = True
            self._end_loop()
