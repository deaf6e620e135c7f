"""All contenders idle at once, each behind a proxy that counts: requests, processor time, growth with deployments."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from tests.bench import rows
from tests.bench.asking import Asker
from tests.bench.contenders import Contender, Setting
from tests.bench.flow_files import read_mark
from tests.bench.line_up import make_contender
from tests.bench.measuring import pss_mib, threads_ns, used_s
from tests.bench.modes import QuietPlan
from tests.bench.results import Results, percent
from tests.bench.sessions import running
from tests.bench.waiting import Deadline, NotReached
from tests.kits.fault_proxy import DAEMON, FLOW, FaultProxy
from tests.kits.prefect_servers import PrefectServer

SETTLE_S = 5.0
GROWING = (rows.COLD, rows.SERVE, rows.WORKER)


@dataclass(frozen=True, slots=True)
class Idler:
    """One contender of the quiet phase. `busy`: a run of it sleeps meanwhile."""

    contender: Contender
    proxy: FaultProxy
    size: int
    busy: bool

    @property
    def asked(self) -> int:
        """Requests until now; a busy host's own, without those of the run."""
        return self.proxy.count(DAEMON) + (0 if self.busy else self.proxy.count(FLOW))


def line_up(plan: QuietPlan) -> list[tuple[str, int, bool]]:
    """Who idles: (contender, deployments, with a sleeping run). Pure."""
    first, *more = plan.sizes
    found = [(rows.COLD, first, False), (rows.COLD, first, True), (rows.POOL, first, False)]
    found += [(who, first, False) for who in (rows.SERVE, rows.WORKER)]
    return found + [(who, size, False) for size in more for who in GROWING]


def measure_quiet(plan: QuietPlan, server: PrefectServer, results: Results, deadline: Deadline) -> None:
    """Start them one after another; then all are left alone for each window."""
    asker = Asker(server.url, deadline)
    with contextlib.ExitStack() as stack:
        stack.callback(asker.close)
        idlers = []
        for who, size, busy in line_up(plan):
            try:
                idlers.append(_started(stack, who, size, busy, server, asker, results, deadline))
            except NotReached as reason:
                results.leave_out(f"{rows.CONTENDERS[who]}, idle with {size} deployments: {reason}")
        deadline.rest(SETTLE_S)
        for _ in range(plan.windows):
            _window(idlers, plan.window_s, server.major, results, deadline)


def _started(
    stack: contextlib.ExitStack, who: str, size: int, busy: bool, server: PrefectServer, asker: Asker,
    results: Results, deadline: Deadline,
) -> Idler:  # fmt: skip
    proxy = stack.enter_context(FaultProxy(upstream=server.url))
    setting = Setting(server=server, url=proxy.url, limit=8, deployments=size)
    contender = make_contender(who, setting, asker, deadline)
    began = time.monotonic()
    stack.enter_context(running(contender))
    if who != rows.WORKER and not busy and who != rows.POOL:  # nothing is registered by those
        results.add(server.major, rows.growth_key("ready", size), who, time.monotonic() - began)
    if busy:
        run_id = asker.create_run(contender.deployment_id(), "sleep")
        deadline.wait(lambda: read_mark(contender.directory, run_id), "the sleeping run", 60.0)
    return Idler(contender, proxy, size, busy)


def _window(idlers: list[Idler], window_s: float, major: int, results: Results, deadline: Deadline) -> None:
    before = [(idler.asked, threads_ns(idler.contender.roots())) for idler in idlers]
    began = time.monotonic()
    deadline.rest(window_s)
    taken_s = time.monotonic() - began
    for idler, (asked, threads) in zip(idlers, before, strict=True):
        who, roots = idler.contender.who, idler.contender.roots()
        a_minute = (idler.asked - asked) * 60 / taken_s
        if idler.busy:
            results.add(major, rows.REQUESTS_BUSY.key, who, a_minute)
            continue
        cpu = percent(used_s(threads, threads_ns(roots)), taken_s)
        if idler.size == 1:
            serves_pool = who in (rows.POOL, rows.WORKER)
            row, shown_as = (
                (rows.REQUESTS_POOL if serves_pool else rows.REQUESTS),
                rows.COLD if who == rows.POOL else who,
            )
            results.add(major, row.key, shown_as, a_minute)
        if idler.size == 1 and who != rows.POOL:
            results.add(major, rows.IDLE_CPU.key, who, cpu)
        if who in GROWING:
            results.add(major, rows.growth_key("cpu", idler.size), who, cpu)
            results.add(major, rows.growth_key("requests", idler.size), who, a_minute)
            results.add(major, rows.growth_key("pss", idler.size), who, pss_mib(roots))
