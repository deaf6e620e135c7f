"""The floor: the requests that a run causes, made again by a few threads, with no process at all.

They are recorded once behind a proxy, from a cold run of runnerd's, and made again for new runs with the new ids. Not
made again: polls, WebSockets (events), and the time in between.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.bench import rows
from tests.bench.asking import Asker
from tests.bench.contenders import Setting
from tests.bench.modes import Mode
from tests.bench.results import Results
from tests.bench.scenarios import Scene
from tests.bench.sessions import on_stage
from tests.bench.waiting import Deadline, NotReached, OutOfTime
from tests.kits.fault_proxy import FLOW, Call, FaultProxy
from tests.kits.prefect_servers import PrefectServer

CANCEL_TIMES = 5
MOST_S = 60.0
SET_STATE = "/set_state"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a run; RUN and TRANSITION stand for its ids."""

    method: str
    path: str
    body: str

    def for_run(self, run_id: str, transition_id: str) -> tuple[str, str, Any]:
        def named(text: str) -> str:
            return text.replace("RUN-ID", run_id).replace("TRANSITION-ID", transition_id)

        return self.method, named(self.path), json.loads(named(self.body))

    @property
    def is_running(self) -> bool:
        """Whether it proposes Running, after which a flow's code begins."""
        return self.path.endswith(SET_STATE) and '"RUNNING"' in self.body


def requests_of(calls: Iterable[Call], run_id: str, base: str) -> list[Request]:
    """What was asked for this run: all that its process asked, and what the host asked that names the run. Pure."""
    found = []
    for call in calls:
        body = json.dumps(call.body)
        if call.status in (0, 101) or not (call.who == FLOW or run_id in call.path or run_id in body):
            continue
        for transition in _transitions(call.body):
            body = body.replace(transition, "TRANSITION-ID")
        path = call.path.removeprefix(base).replace(run_id, "RUN-ID")
        found.append(Request(call.method, path, body.replace(run_id, "RUN-ID")))
    return found


def _transitions(body: Any) -> list[str]:
    state = body.get("state") if isinstance(body, dict) else None
    details = state.get("state_details") if isinstance(state, dict) else None
    transition = details.get("transition_id") if isinstance(details, dict) else None
    return [transition] if isinstance(transition, str) else []


class Floor:
    """Makes the recorded requests for runs of one deployment."""

    def __init__(self, *, url: str, deployment_id: str, requests: list[Request], deadline: Deadline) -> None:
        self._url, self._deployment_id = url, deployment_id
        self._requests, self._deadline = requests, deadline
        self._failures: list[int] = []  # statuses; appended to by all threads

    @property
    def failed(self) -> int:
        return len(self._failures)

    def one(self, asker: Asker, run_id: str) -> float:
        """Make the requests of one run; the time at which its code would have begun."""
        transition_id, begun = str(uuid.uuid4()), 0.0
        for request in self._requests:
            self._deadline.check()
            status = asker.status(*request.for_run(run_id, transition_id))
            if status == 0 or status >= 500:
                self._failures.append(status)
            if request.is_running and not begun:
                begun = time.time()
        return begun or time.time()

    def adhoc(self) -> float:
        asker = Asker(self._url, self._deadline)
        began = time.time()
        taken = self.one(asker, asker.create_run(self._deployment_id, "noop")) - began
        asker.close()
        return taken

    def burst(self, count: int, limit: int) -> float:
        """Seconds until the requests of that many runs are made, at most `limit` runs at a time."""
        created: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threads = [threading.Thread(target=self._work, args=(created,), daemon=True) for _ in range(limit)]
        asker = Asker(self._url, self._deadline)
        began = time.time()
        for thread in threads:
            thread.start()
        try:
            for _ in range(count):
                created.put(asker.create_run(self._deployment_id, "noop"))
        finally:
            for _ in threads:
                created.put(None)
            for thread in threads:
                thread.join(MOST_S + count)
            asker.close()
        self._deadline.check()  # else the threads have ended before their work was done
        return time.time() - began

    def _work(self, created: queue.SimpleQueue[str | None]) -> None:
        asker = Asker(self._url, self._deadline)
        with contextlib.closing(asker), contextlib.suppress(OutOfTime, NotReached):
            while (run_id := created.get()) is not None:
                self.one(asker, run_id)

    def cancel(self) -> float:
        asker = Asker(self._url, self._deadline)
        run_id = asker.create_run(self._deployment_id, "noop")
        for kind in ("PENDING", "RUNNING"):
            asker.set_state(run_id, kind)
        began = time.time()
        for kind in ("CANCELLING", "CANCELLED"):
            asker.set_state(run_id, kind)
        taken = time.time() - began
        asker.close()
        return taken


def measure_floor(mode: Mode, server: PrefectServer, results: Results, deadline: Deadline) -> None:
    """Record a run, end the host, and make the requests of runs of its deployment again."""
    with FaultProxy(upstream=server.url) as proxy:
        setting = Setting(server=server, url=proxy.url, limit=1, poll_s=1.0)
        with on_stage(rows.COLD, setting, results, deadline) as scene:
            requests = _recorded(scene, proxy)
            scene.contender.close()  # its deployment stays until the scene is over
            floor = Floor(url=server.url, deployment_id=scene.deployment_id, requests=requests, deadline=deadline)
            results.about["requests_of_a_run"] = len(requests)
            _samples(floor, mode, server.major, results)
            results.trouble(server.major, rows.FLOOR, "requests that failed", floor.failed)


def _recorded(scene: Scene, proxy: FaultProxy) -> list[Request]:
    proxy.forget_calls()
    run_id = scene.create("noop")
    scene.expect_completed([run_id])
    scene.deadline.rest(2.0)  # its process and its host have last words
    return requests_of(proxy.calls, run_id, "/api")


def _samples(floor: Floor, mode: Mode, major: int, results: Results) -> None:
    for _ in range(CANCEL_TIMES):
        taken = floor.adhoc()
        for row in (rows.ADHOC, rows.ADHOC_1S):
            results.add(major, row.key, rows.FLOOR, taken)
        results.add(major, rows.CANCEL_REPORTED.key, rows.FLOOR, floor.cancel())
    for plan in mode.sessions:
        for burst in plan.bursts if major in plan.majors else ():
            for _ in range(mode.floor_times):
                taken = floor.burst(burst.count, plan.limit)
                results.add(major, rows.burst_key(burst.count, plan.limit), rows.FLOOR, taken)
