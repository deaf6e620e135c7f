"""What is done with one running contender; every scenario adds its samples, and counts what went wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

from tests.bench import rows
from tests.bench.asking import FINAL, Asker, seconds
from tests.bench.contenders import Contender
from tests.bench.flow_files import read_mark
from tests.bench.measuring import ends_at, machine_busy_s, pss_mib, tree_s
from tests.bench.modes import Burst
from tests.bench.results import Results
from tests.bench.waiting import Deadline, NotReached

FIRST_LINE_S = 60.0
END_S = 60.0
BURST_S_PER_RUN, BURST_LEAST_S = 4.0, 45.0
CANCEL_S = 45.0
LATE_LEAD_S = 12.0  # more than a poll, and than what a contender claims ahead by default
LATE_GAP_S = 3.0
STAGGER_S = 0.5
SETTLE_S = 2.0


@dataclass
class Scene:
    """One contender on one server, and where its samples go."""

    major: int
    contender: Contender
    asker: Asker
    results: Results
    deadline: Deadline
    deployment_id: str
    server: psutil.Process | None = None
    sleeping: list[str] = field(default_factory=list)

    @property
    def who(self) -> str:
        return self.contender.who

    def add(self, row: str, value: float, *, whole: bool = True) -> None:
        self.results.add(self.major, row, self.who, value, whole=whole)

    def trouble(self, what: str, count: int = 1) -> None:
        self.results.trouble(self.major, self.who, what, count)

    # --- steps of scenarios -----------------------------------------------------------------------------------------

    def create(self, how: str, *, at: float | None = None) -> str:
        return self.asker.create_run(self.deployment_id, how, at=at)

    def mark(self, run_id: str, limit_s: float = FIRST_LINE_S) -> tuple[float, int]:
        """The time and the process of a run's first line; looked for often, since polling a file costs nothing."""
        directory = self.contender.directory
        return self.deadline.wait(lambda: read_mark(directory, run_id), "a first line", limit_s, every_s=0.01)

    def first_line(self, run_id: str, began: float, row: str) -> tuple[float, int] | None:
        """Its mark; None, and a sample that is a lower bound, where the limit was over first."""
        try:
            return self.mark(run_id)
        except NotReached:
            self.add(row, time.time() - began, whole=False)
            self.trouble(f"runs without a first line within {FIRST_LINE_S:g} s")
            return None

    def over(self, run_ids: list[str], limit_s: float = END_S) -> bool:
        """Wait until these runs are in a final state; whether they are within the limit."""
        if not run_ids:
            return True
        try:
            self.deadline.wait(
                lambda: self.asker.count_final(run_ids) >= len(run_ids), "runs to end", limit_s, every_s=0.3
            )
        except NotReached:
            return False
        return True

    def expect_completed(self, run_ids: list[str], limit_s: float = END_S) -> None:
        """Wait for the end of no-op runs, and count those that did not come to a good one."""
        if not self.over(run_ids, limit_s):
            self.trouble(f"runs not over {limit_s:g} s later", self._unfinished(run_ids))
        self.trouble("no-op runs that ended badly", sum(
            run["state"]["type"] in FINAL and run["state"]["type"] != "COMPLETED" for run in self.asker.runs(run_ids)
        ))  # fmt: skip

    def _unfinished(self, run_ids: list[str]) -> int:
        return len(run_ids) - self.asker.count_final(run_ids)

    def give_up(self, run_ids: list[str]) -> None:
        """Let no run of a scenario burden the next one."""
        for run in self.asker.runs(run_ids):
            if run["state"]["type"] not in FINAL:
                self.asker.set_state(run["id"], "CANCELLED", force=True)


# --- the scenarios ----------------------------------------------------------------------------------------------


def warm_up(scene: Scene) -> str:
    """One run that is not measured; how it was started."""
    run_id = scene.create("noop")
    scene.mark(run_id)
    how = scene.contender.started_how(run_id)
    scene.expect_completed([run_id])
    return how


def idle(scene: Scene, seconds_: float) -> None:
    scene.deadline.rest(seconds_)
    for _ in range(2):
        scene.add(rows.IDLE_PSS.key, pss_mib(scene.contender.roots()))
        scene.deadline.rest(0.5)


def adhoc(scene: Scene, row: str, times: int) -> None:
    """Runs one after another; each begins at another moment of the contender's polls."""
    for number in range(times):
        scene.deadline.rest(0.2 + 0.7 * number % 1.3)
        began = time.time()
        run_id = scene.create("noop")
        mark = scene.first_line(run_id, began, row)
        if mark is not None:
            scene.add(row, mark[0] - began)
            scene.trouble(f"runs not started {scene.who}", _is_other(scene, run_id))
        scene.expect_completed([run_id])
        scene.give_up([run_id])
        if mark is not None:
            ends_at(mark[1], 10)


def _is_other(scene: Scene, run_id: str) -> int:
    """1 for a run of a warm host that was started cold."""
    return int(scene.who == rows.WARM and scene.contender.started_how(run_id) != rows.WARM)


def burst(scene: Scene, plan: Burst, limit: int) -> None:
    for _ in range(plan.times):
        _burst_once(scene, plan.count, limit)


def _burst_once(scene: Scene, count: int, limit: int) -> None:
    limit_s = max(BURST_LEAST_S, BURST_S_PER_RUN * count)
    key = rows.burst_key(count, limit)
    busy_s, server_s = machine_busy_s(), tree_s(scene.server) if scene.server else 0.0
    began = time.time()
    run_ids = [scene.create("noop") for _ in range(count)]
    whole = scene.over(run_ids, limit_s - (time.time() - began))
    runs = scene.asker.runs(run_ids)
    ended = [seconds(run["end_time"]) for run in runs if run["end_time"]]
    scene.add(key, max(ended) - began if whole and ended else time.time() - began, whole=whole)
    scene.add(f"{key}-cpu", machine_busy_s() - busy_s)
    scene.add(f"{key}-server", tree_s(scene.server) - server_s if scene.server else 0.0)
    bad = sum(run["state"]["type"] in FINAL and run["state"]["type"] != "COMPLETED" for run in runs)
    unfinished = sum(run["state"]["type"] not in FINAL for run in runs)
    scene.trouble(f"runs of a burst not over within {limit_s:g} s", unfinished)
    scene.trouble("runs of a burst that ended badly", bad)
    scene.give_up(run_ids)


def late(scene: Scene, count: int) -> None:
    """Runs that are scheduled some seconds apart; one that begins early is a failure."""
    begin = time.time() + LATE_LEAD_S
    due = {scene.create("noop", at=begin + n * LATE_GAP_S): begin + n * LATE_GAP_S for n in range(count)}
    for run_id, at in due.items():
        try:
            mark = scene.mark(run_id, at - time.time() + 30)
        except NotReached:
            scene.add(rows.LATE.key, (time.time() - at) * 1000, whole=False)
            scene.trouble("scheduled runs not begun within 30 s")
            continue
        scene.add(rows.LATE.key, (mark[0] - at) * 1000)
        scene.trouble("scheduled runs begun before their time", int(mark[0] < at))
    scene.expect_completed(list(due))
    scene.give_up(list(due))


def concurrent(scene: Scene, count: int, *, stubborn: int = 0) -> list[str]:
    """Start that many sleeping runs, the last of them stubborn; add their memory; return those that run."""
    hows = ["sleep"] * (count - stubborn) + ["stubborn"] * stubborn
    run_ids = [scene.create(how) for how in hows]
    scene.sleeping += run_ids
    until = time.time() + 40 + 4 * count
    running = []
    for run_id in run_ids:
        try:
            scene.mark(run_id, max(0.1, until - time.time()))
            running.append(run_id)
        except NotReached:
            scene.trouble("concurrent runs that did not begin")
    if len(running) == count:
        for pause_s in (SETTLE_S, 0.5):
            scene.deadline.rest(pause_s)
            scene.add(rows.memory_key(count), pss_mib(scene.contender.roots()))
    return running


def polite(scene: Scene, run_ids: list[str]) -> None:
    """Cancel these one after another."""
    for run_id in run_ids:
        _, pid = scene.mark(run_id, 1)
        began = time.time()
        scene.asker.set_state(run_id, "CANCELLING")
        gone = ends_at(pid, min(CANCEL_S, scene.deadline.left_s))
        if gone is None:
            scene.add(rows.CANCEL_GONE.key, time.time() - began, whole=False)
            scene.trouble(f"cancelled runs whose process lived on for {CANCEL_S:g} s")
        else:
            scene.add(rows.CANCEL_GONE.key, gone - began)
        scene.over([run_id])
        state = scene.asker.state(run_id)
        if state["type"] == "CANCELLED":
            scene.add(rows.CANCEL_REPORTED.key, seconds(state["timestamp"]) - began)
        else:
            scene.trouble(f"cancelled runs that are {state['type'].capitalize()}")


def stubborn(scene: Scene, run_ids: list[str]) -> None:
    """Cancel these at almost the same time: the grace of Prefect's own is half a minute."""
    began: dict[str, tuple[float, int]] = {}
    for run_id in run_ids:
        _, pid = scene.mark(run_id, 1)
        began[run_id] = time.time(), pid
        scene.asker.set_state(run_id, "CANCELLING")
        scene.deadline.rest(STAGGER_S)
    grace_s = scene.contender.grace_s
    for at, pid in began.values():
        gone = ends_at(pid, min(grace_s + CANCEL_S, scene.deadline.left_s))
        if gone is None:
            scene.trouble(f"stubborn runs whose process lived on for {CANCEL_S:g} s beyond its grace")
        scene.add(rows.STUBBORN.key, (gone or time.time()) - at - grace_s, whole=gone is not None)
    scene.over(list(began))


def end_sleepers(scene: Scene, *, politely: bool) -> None:
    """Cancel what still sleeps; with nothing to follow, only in the API: the contender is killed with its runs."""
    sleeping, scene.sleeping = scene.sleeping, []
    if politely:
        left = [run["id"] for run in scene.asker.runs(sleeping) if run["state"]["type"] not in FINAL]
        for run_id in left:
            scene.asker.set_state(run_id, "CANCELLING")
        if not left or scene.over(left, 30):
            return
    scene.give_up(sleeping)
