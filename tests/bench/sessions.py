"""One session: a contender is started, goes through the scenarios of its plan, and is ended without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from psutil import Process, virtual_memory

from tests.bench import rows, scenarios
from tests.bench.asking import Asker
from tests.bench.contenders import Contender, Setting
from tests.bench.flow_files import FLOW
from tests.bench.line_up import make_contender
from tests.bench.modes import SessionPlan
from tests.bench.results import Results
from tests.bench.scenarios import Scene
from tests.bench.waiting import Deadline
from tests.kits.prefect_servers import PrefectServer

WARM_TRIES, FORGET_S = 3, 10.0
MIB_OF_A_RUN = 120


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[Contender]:
    """Started, and ended on leaving."""
    try:
        contender.start()
        yield contender
    finally:
        contender.close()


@contextlib.contextmanager
def on_stage(who: str, setting: Setting, results: Results, deadline: Deadline) -> Iterator[Scene]:
    """A running contender with a connection to the server; afterwards the server has nothing of it any more."""
    server = setting.server
    asker = Asker(server.url, deadline)
    contender = make_contender(who, setting, asker, deadline)
    try:
        with running(contender):
            process = Process(server.pid)
            place = contender.deployment_id()
            yield Scene(server.major, contender, asker, results, deadline, place, process)
            results.trouble(server.major, who, "lines of its log about a 503", contender.logged_503())
    finally:
        for what, count in asker.troubles.items():
            results.trouble(server.major, who, f"answers of the server to the benchmark: {what}", count)
        asker.close()
        forget(contender)


def forget(contender: Contender) -> None:
    """Delete what it has put on the server: the next contender finds the same as this one did."""
    asker = Asker(contender.setting.server.url, Deadline(FORGET_S))  # also when the session has run out of time
    for name in contender.names()[:10]:
        found = asker.deployment_id(FLOW, name)
        if found is not None:
            asker.status("DELETE", f"/deployments/{found}", None)
    asker.status("DELETE", f"/work_pools/{contender.name}", None)
    asker.close()


def run_session(plan: SessionPlan, who: str, server: PrefectServer, results: Results, deadline: Deadline) -> None:
    """All of the plan; NotReached ends it early, and what was measured until then stays."""
    setting = Setting(server=server, url=server.url, limit=plan.limit, poll_s=plan.poll_s)
    with on_stage(who, setting, results, deadline) as scene:
        if who == rows.WARM and not _is_warm(scene):
            results.absent[who] = "runs of a host with `run.start: warm` are started cold in this checkout"
            return
        if plan.idle_s:
            scenarios.idle(scene, plan.idle_s)
        if plan.adhoc:
            scenarios.adhoc(scene, (rows.ADHOC if plan.poll_s is None else rows.ADHOC_1S).key, plan.adhoc)
        for burst in plan.bursts:
            scenarios.burst(scene, burst, plan.limit)
        if plan.late:
            scenarios.late(scene, plan.late)
        _sleepers(scene, plan)


def _is_warm(scene: Scene) -> bool:
    """Whether the host starts a run warm: the first ones may have to wait for the warm interpreter."""
    return any(scenarios.warm_up(scene) == rows.WARM for _ in range(WARM_TRIES))


def _sleepers(scene: Scene, plan: SessionPlan) -> None:
    for number, count in enumerate(plan.concurrent):
        polite = plan.polite if number == 0 else 0
        stubborn = min(plan.stubborn, count - 1) if number == 0 and scene.who in plan.stubborn_of else 0
        if virtual_memory().available < count * MIB_OF_A_RUN * 2**20:
            scene.results.leave_out(f"{count} concurrent runs: less than {MIB_OF_A_RUN} MiB are free for each")
            continue
        run_ids = scenarios.concurrent(scene, count, stubborn=stubborn)
        if len(run_ids) == count:
            scenarios.polite(scene, run_ids[: min(polite, count - stubborn)])
            scenarios.stubborn(scene, run_ids[count - stubborn :])
        scenarios.end_sleepers(scene, politely=number + 1 < len(plan.concurrent))
