"""Finds an interpreter that can run a pool's Prefect worker, or makes a Python environment as install_policy allows.

Invariants: the spawner runs every process of this, as the pool's own user; an installation outlives the daemon that
began it, and the next daemon waits for it; an installation that fails hinders no other pool and is tried again, with
growing delays.
"""

from __future__ import annotations

import asyncio
import os

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.launch.spec import program_text
from runnerd.log.log import Log
from runnerd.pools.workers.command import (
    INSTALL_LIMIT_S,
    OUTDATED,
    ProbedPython,
    WorkerPlan,
    install_advice,
    install_key_prefix,
    install_spec,
    label,
    parse_probe,
    probe_spec,
    why_unsuited,
)
from runnerd.pools.workers.output import WorkerOutput
from runnerd.processes.helper import HelperOutcome, last_line, name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.long_lived import Unready, stop_and_forget
from runnerd.processes.protocol import Record

_AGAIN_S, _AGAIN_CAP_S = 30.0, 1800.0  # a registry that is down for a night must not get a request every minute
_ANSWER_MAX = 65536  # characters


class InterpreterFinder:
    """Finds the interpreter of one pool's worker. `installing`: whether pip is at work for it."""

    def __init__(self, *, pool: str, link: SpawnerLink, work_dir: str, log_dir: str, log: Log) -> None:
        self._pool = pool
        self._link = link
        self._work_dir = work_dir
        self._log = log
        self._output = WorkerOutput(
            path=os.path.join(log_dir, f"worker-{label(pool)}.install.log"),
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self._upgraded: str | None = None  # the directory upgraded last: `always` means once for each daemon
        self._woken = asyncio.Event()
        self.installing = False

    async def find(self, plan: WorkerPlan) -> ProbedPython | Unready:
        """Return the interpreter of the pool's run:, if it can run the worker; else one of a new environment."""
        python = plan.settings.run.python
        answer = await self._probe(plan, python)
        if isinstance(answer, str):
            return Unready(f"cannot be started: {python}: {answer.removeprefix('cannot start: ')}")
        lacks = why_unsuited(answer, plan)
        if lacks is None:
            return answer
        policy = plan.settings.install_policy
        if plan.package is None:
            listed = f"the server lists no worker of type {plan.type}"
            return Unready(f"cannot be started: {python} {lacks}, and {listed}; install what serves it there")
        if policy in ("never", "prompt"):
            why = (
                "install_policy is never" if policy == "never" else "a daemon cannot ask as install_policy: prompt says"
            )
            return Unready(f"cannot be started: {python} {lacks}, and {why}; {install_advice(plan)}")
        return await self._make_environment(plan)

    async def stop(self) -> None:
        """End an installation that is under way."""
        await self._end(self._records())

    # --- a new environment -------------------------------------------------------------------------------------------

    async def _make_environment(self, plan: WorkerPlan) -> ProbedPython | Unready:
        upgrade = plan.settings.install_policy == "always" and self._upgraded != plan.directory
        failed = await self._install(plan, upgrade=upgrade)
        if failed is not None:
            return Unready(
                f"cannot be installed: {failed}; see {self._output.path}",
                min_delay_s=_AGAIN_S,
                max_delay_s=_AGAIN_CAP_S,
            )
        self._upgraded = plan.directory
        python = os.path.join(plan.directory, "bin", "python")
        answer = await self._probe(plan, python)
        lacks = answer if isinstance(answer, str) else why_unsuited(answer, plan)
        if isinstance(answer, str) or lacks is not None:
            return Unready(f"cannot be started: {python} {lacks}; remove {plan.directory}, and it is made again")
        return answer

    async def _install(self, plan: WorkerPlan, *, upgrade: bool) -> str | None:
        """Make or upgrade `plan.directory`; why that failed, None when it did not."""
        alive = [seen for seen in self._records() if seen.key == plan.install_key and seen.phase != "exited"]
        program = program_text("install_worker")
        attempt = alive[0].attempt if alive else 1
        spec = install_spec(plan, program=program, upgrade=upgrade, attempt=attempt, output=self._output.path)
        self.installing = True
        try:
            await self._end([seen for seen in self._records() if seen not in alive])
            self._output.begin(fresh=not alive)
            seen = await self._run_to_end(spec)
            await self._link.forget(spec.key, spec.attempt)
        except SpawnerError as error:
            return str(error)
        finally:
            self.installing = False
        return self._why_failed(seen)

    async def _run_to_end(self, spec: LaunchSpec) -> Record | None:
        """Start the process, or find it running, and wait for its end; `stop` may wait for the same end."""
        await self._link.spawn(spec)
        self._link.add_listener(spec.key, self._woken.set)
        while True:
            self._woken.clear()
            seen = self._link.record(spec.key, spec.attempt)
            if (seen is None and self._link.connected) or (seen is not None and seen.phase == "exited"):
                return seen
            await self._woken.wait()

    def _records(self) -> list[Record]:
        return [seen for seen in self._link.records() if seen.key.startswith(install_key_prefix(self._pool))]

    async def _end(self, these: list[Record]) -> None:
        for seen in these:
            await stop_and_forget(self._link, seen, changed=self._woken)

    def _why_failed(self, seen: Record | None) -> str | None:
        code = seen.exit.code if seen is not None and seen.exit is not None else None
        if code == 0:
            return None
        words = self._output.last_words()
        if code == OUTDATED:
            self._log.warning("cannot upgrade a worker; the worker starts as it is", pool=self._pool, why=words)
            return None
        if seen is not None and seen.stop_reason == "timeout":
            return f"it took longer than {format_duration(INSTALL_LIMIT_S)}"
        if code is None or words is None:
            return f"it {describe_end(seen)}" + (f": {words}" if words else "")
        return words

    # --- probing -----------------------------------------------------------------------------------------------------

    async def _probe(self, plan: WorkerPlan, python: str) -> ProbedPython | str:
        """Run PROBE with this interpreter; return what it found, or why it did not run."""
        names = name_helper(self._work_dir)
        spec = probe_spec(plan, python, key=names.key, output=names.output, result=names.result)
        try:
            outcome = await run_helper(spec, link=self._link, answer_max=_ANSWER_MAX)
        except SpawnerError as error:
            return str(error)
        return parse_probe(python, outcome.answer) or _why_no_answer(outcome)


def _why_no_answer(outcome: HelperOutcome) -> str:
    last = last_line(outcome.output)
    return describe_end(outcome.record) + (f": {last}" if last else "")
