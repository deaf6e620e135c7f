"""Supervises a Prefect worker: for a pool of a type that runnerd does not run itself (docker, kubernetes, ecs, ...).

Invariants: the worker belongs to the spawner and outlives the daemon; it runs as the pool's user with nothing but that
user's environment and the access to Prefect; it is restarted exactly when its plan has changed; errors that it prints
are a problem in status, also while it runs on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection

from runnerd.core.exit_words import time_text
from runnerd.core.place import Json
from runnerd.core.prefect import WorkerType
from runnerd.core.process import LaunchSpec
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.pools.table import Served
from runnerd.pools.workers.command import (
    INSTALL_PREFIX,
    KEY_PREFIX,
    ProbedPython,
    WorkerPlan,
    install_key_prefix,
    key_prefix,
    label,
    package_of,
    worker_spec,
)
from runnerd.pools.workers.interpreter import InterpreterFinder
from runnerd.pools.workers.output import WorkerOutput
from runnerd.prefect_api.answers import ServerInfo
from runnerd.processes.link import SpawnerLink
from runnerd.processes.long_lived import LongLived, ProcessState, RestartDelays, Unready, stop_and_forget
from runnerd.processes.protocol import Record
from runnerd.system.directories import work_dir
from runnerd.system.paths import Paths

READ_OUTPUT_S = 5.0
_RUNS_ON = "; it runs on as it was started before"
ERROR_FRESH_S = 900.0  # how long `status` shows an error of a worker that runs on


class PrefectWorker:
    """The worker of one pool; `want` says what to start, before `run` and whenever the pool may have changed."""

    def __init__(
        self,
        *,
        pool: str,
        link: SpawnerLink,
        environments: Environments,
        access: Callable[[], ApiAccess],
        paths: Paths,
        name: Callable[[], str],
        log: Log,
        delays: RestartDelays | None = None,
    ) -> None:
        """`name` is the worker's name in the pool; `access` is called at each `want`, because a key may be rotated."""
        self._pool = pool
        self._environments = environments
        self._access = access
        self._name = name
        self._log = log
        self._finder = InterpreterFinder(pool=pool, link=link, work_dir=work_dir(paths), log_dir=paths.log, log=log)
        self._output = WorkerOutput(
            path=os.path.join(paths.log, f"worker-{label(pool)}.log"), clock=lambda: asyncio.get_running_loop().time()
        )
        self._process = LongLived(
            link=link,
            wanted_key=lambda: self._plan.key if self._plan is not None else None,
            owns=lambda key: key.startswith(key_prefix(pool)),
            make_spec=self._make_spec,
            on_running=self._began,
            on_failure=self._ended,
            before_start=self._output.begin,
            delays=delays,
        )
        self._plan: WorkerPlan | None = None
        self._no_plan: str | None = None  # why no plan can be made of the pool's settings
        self._type = "?"
        self._found: ProbedPython | None = None  # the interpreter for the next start
        self._python: str | None = None  # the interpreter that it runs with
        self._cannot_start = False  # whether the last failure was one to start; else the worker has ended
        self._last_words: str | None = None  # what it printed before it ended
        self._logged: str | None = None  # the reason why it cannot be started that was logged last

    # --- the plan ----------------------------------------------------------------------------------------------------

    async def want(self, served: Served, *, kind: WorkerType | None, server: ServerInfo) -> None:
        """Plan the worker for the pool as it is now, and restart it if the plan is another one. Cheap otherwise."""
        assert served.pool is not None
        self._type = served.pool.type
        plan = await self._make_plan(served, kind, server)
        if isinstance(plan, str):
            self._no_plan = plan
            return  # a file that cannot be read for a moment must not end a worker that runs
        self._no_plan = None
        if (plan and plan.key) != (self._plan and self._plan.key):
            self._plan = plan
            self._process.wake()

    async def _make_plan(self, served: Served, kind: WorkerType | None, server: ServerInfo) -> WorkerPlan | str | None:
        settings = served.settings
        chosen = bool(settings.queues or settings.match)
        if chosen and not served.queues:
            return None  # without a queue's name Prefect's worker would serve every queue
        environment = await self._environments.build(settings.run)
        if isinstance(environment, str):
            return environment
        return WorkerPlan(
            settings=settings,
            type=self._type,
            package=package_of(kind),
            server=server,
            queues=tuple(sorted(queue.name for queue in served.queues)) if chosen else (),
            name=self._name(),
            environment=environment,
            access=self._access(),
        )

    # --- the process -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the worker for ever; being cancelled leaves the process running, for the next daemon."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read_output(), name=f"output of the worker of {self._pool}")
            await self._process.run()
            reading.cancel()

    async def stop(self) -> None:
        """End the worker and its installation, by SIGTERM, then SIGKILL."""
        await asyncio.gather(self._process.stop(), self._finder.stop())

    async def _read_output(self) -> None:
        while True:
            await self._output.read_new()
            await asyncio.sleep(READ_OUTPUT_S)

    async def _make_spec(self) -> LaunchSpec | Unready:
        plan = self._plan
        assert plan is not None, "no process is started before `want`"
        python = await self._finder.find(plan)
        if isinstance(python, Unready):
            return python
        self._found = python
        return worker_spec(plan, python, output=self._output.path)

    def _began(self, seen: Record, fresh: bool) -> None:
        pid = seen.identity.pid if seen.identity is not None else None
        if not fresh:
            self._output.begin(fresh=False)
            self._python = _program_of(pid)
        else:
            self._python = self._found.python if self._found is not None else None
        self._logged = None
        self._log.info("Prefect's worker runs", pool=self._pool, type=self._type, pid=pid, found=not fresh or None)

    def _ended(self, words: str, again_in_s: float) -> None:
        self._cannot_start = self._process.state is ProcessState.FAILED
        self._last_words = said = None if self._cannot_start else self._output.last_words()
        about: dict[str, Json] = {"words": words, "said": said, "output": self._output.path, "again_in_s": again_in_s}
        if self._cannot_start and words == self._logged:  # tried again and again, logged once
            self._log.debug("Prefect's worker still does not run", pool=self._pool, **about)
            return
        self._logged = words if self._cannot_start else None
        self._log.error("Prefect's worker does not run", pool=self._pool, **about, alert=Alert.WORKER_ENDED)

    # --- for status --------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """What an administrator has to fix; None when there is nothing."""
        who = f"Prefect's {self._type} worker of work pool {self._pool}"
        runs = self._process.find_live_record() is not None
        if self._no_plan is not None:
            return f"{who} cannot be started: {self._no_plan}" + (_RUNS_ON if runs else "")
        error = self._recent_error(who) if self._process.state is ProcessState.RUNNING else None
        if error is not None or self._process.problem is None:
            return error
        if self._cannot_start:
            return f"{who} {self._process.problem}" + (_RUNS_ON if runs else "")
        said = f": {self._last_words}" if self._last_words else ""
        again = "; it runs again" if self._process.state is ProcessState.RUNNING else ""
        return f"{who} ended: {self._process.problem}{said}{again}; see {self._output.path}"

    def _recent_error(self, who: str) -> str | None:
        """Return the latest error of a worker that runs on, while the error is fresh."""
        error, at = self._output.findings.error, self._output.error_at
        if error is None or at is None or asyncio.get_running_loop().time() - at > ERROR_FRESH_S:
            return None
        times = f" ({self._output.findings.errors} errors so far)" if self._output.findings.errors > 1 else ""
        return f"{who} runs, and says: {error}{times}; see {self._output.path}"

    def document(self) -> dict[str, Json]:
        """Return the worker's document for `status`."""
        seen, plan = self._process.find_live_record(), self._plan
        return {
            "state": self._state(),
            "pid": seen.identity.pid if seen is not None and seen.identity is not None else None,
            "since": time_text(seen.started_at) if seen is not None else None,
            "restarts": self._process.restarts,
            "package": plan.package if plan is not None else None,
            "python": self._python,
            "output": self._output.path,
            "errors": self._output.findings.errors,
            "problem": self.problem,
        }

    def _state(self) -> str:
        if self._finder.installing:
            return "installing"
        state = self._process.state
        return (ProcessState.WAITING if state is ProcessState.PREPARING else state).value


async def end_leftovers(link: SpawnerLink, pools: Collection[str]) -> list[str]:
    """End the workers and installations, left by an earlier daemon, of all pools but these.

    Ends one after the other, by SIGTERM, then SIGKILL; returns the keys of those ended.
    """
    wanted = tuple(prefix for pool in pools for prefix in (key_prefix(pool), install_key_prefix(pool)))
    ended = [
        seen
        for seen in link.records()
        if seen.key.startswith((KEY_PREFIX, INSTALL_PREFIX)) and not seen.key.startswith(wanted)
    ]
    for seen in ended:
        await stop_and_forget(link, seen, changed=asyncio.Event())
    return [seen.key for seen in ended]


def _program_of(pid: int | None) -> str | None:
    """Return the program of a process that an earlier daemon has started; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsdecode(file.read().partition(b"\0")[0]) or None
    except OSError:
        return None
