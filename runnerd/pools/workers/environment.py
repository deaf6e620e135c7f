"""Finds the interpreter for one of Prefect's workers, or makes it an environment as its install_policy allows.

Invariants: everything of it happens in the spawner's hands, as the pool's own user; an installation outlives the daemon
that began it, and the next one waits for it; one that fails costs no other pool anything and is tried again, ever
further apart.
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
    Interpreter,
    Wish,
    advice,
    install_family,
    install_spec,
    label,
    probe_spec,
    read_answer,
    unsuited,
)
from runnerd.pools.workers.output import WorkerOutput
from runnerd.processes.helper import HelperOutcome, last_line, name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.long_lived import Unready, stop_and_forget
from runnerd.processes.protocol import Record

_AGAIN_S, _AGAIN_CAP_S = 30.0, 1800.0  # a registry that is away for a night should not see us every minute
_ANSWER_MAX = 65536


class WorkerHome:
    """Of one pool. `installing` while pip works for it."""

    def __init__(self, *, pool: str, link: SpawnerLink, work_dir: str, log_dir: str, log: Log) -> None:
        self._pool = pool
        self._link = link
        self._work_dir = work_dir
        self._log = log
        self._output = WorkerOutput(
            path=os.path.join(log_dir, f"worker-{label(pool)}.install.log"),
            clock=lambda: asyncio.get_running_loop().time(),
        )
        self._upgraded: str | None = None  # `always` means once in a daemon's life
        self._woken = asyncio.Event()
        self.installing = False

    async def interpreter(self, wish: Wish) -> Interpreter | Unready:
        """The interpreter of the pool's run, where it has what is needed; else one of our own."""
        python = wish.settings.run.python
        answer = await self._ask(wish, python)
        if isinstance(answer, str):
            return Unready(f"cannot be started: {python}: {answer.removeprefix('cannot start: ')}")
        lacks = unsuited(answer, wish)
        if lacks is None:
            return answer
        policy = wish.settings.install_policy
        if wish.package is None:
            listed = f"the server lists no worker of type {wish.type}"
            return Unready(f"cannot be started: {python} {lacks}, and {listed}; install what serves it there")
        if policy in ("never", "prompt"):
            why = (
                "install_policy is never" if policy == "never" else "a daemon cannot ask as install_policy: prompt says"
            )
            return Unready(f"cannot be started: {python} {lacks}, and {why}; {advice(wish)}")
        return await self._own(wish)

    async def stop(self) -> None:
        """End an installation that is under way."""
        await self._end(self._records())

    # --- an environment of our own --------------------------------------------------------------------------------

    async def _own(self, wish: Wish) -> Interpreter | Unready:
        upgrade = wish.settings.install_policy == "always" and self._upgraded != wish.directory
        failed = await self._install(wish, upgrade=upgrade)
        if failed is not None:
            return Unready(
                f"cannot be installed: {failed}; see {self._output.path}",
                min_delay_s=_AGAIN_S,
                max_delay_s=_AGAIN_CAP_S,
            )
        self._upgraded = wish.directory
        python = os.path.join(wish.directory, "bin", "python")
        answer = await self._ask(wish, python)
        lacks = answer if isinstance(answer, str) else unsuited(answer, wish)
        if isinstance(answer, str) or lacks is not None:
            return Unready(f"cannot be started: {python} {lacks}; remove {wish.directory}, and it is made again")
        return answer

    async def _install(self, wish: Wish, *, upgrade: bool) -> str | None:
        """Why it failed, None when it is there."""
        alive = [seen for seen in self._records() if seen.key == wish.install_key and seen.phase != "exited"]
        program = program_text("install_worker")
        attempt = alive[0].attempt if alive else 1
        spec = install_spec(wish, program=program, upgrade=upgrade, attempt=attempt, output=self._output.path)
        self.installing = True
        try:
            await self._end([seen for seen in self._records() if seen not in alive])
            self._output.begin(fresh=not alive)
            seen = await self._run_on(spec)
            await self._link.forget(spec.key, spec.attempt)
        except SpawnerError as error:
            return str(error)
        finally:
            self.installing = False
        return self._judge(wish, seen)

    async def _run_on(self, spec: LaunchSpec) -> Record | None:
        """Start it, or find it running, and wait for its end; `stop` may wait for the same."""
        await self._link.spawn(spec)
        self._link.add_listener(spec.key, self._woken.set)
        while True:
            self._woken.clear()
            seen = self._link.record(spec.key, spec.attempt)
            if (seen is None and self._link.connected) or (seen is not None and seen.phase == "exited"):
                return seen
            await self._woken.wait()

    def _records(self) -> list[Record]:
        return [seen for seen in self._link.records() if seen.key.startswith(install_family(self._pool))]

    async def _end(self, these: list[Record]) -> None:
        for seen in these:
            await stop_and_forget(self._link, seen, changed=self._woken)

    def _judge(self, wish: Wish, seen: Record | None) -> str | None:
        code = seen.exit.code if seen is not None and seen.exit is not None else None
        if code == 0:
            return None
        words = self._output.last_words()
        if code == OUTDATED:
            self._log.warning("cannot upgrade a worker; it is started as it is", pool=self._pool, why=words)
            return None
        if seen is not None and seen.stop_reason == "timeout":
            return f"it took longer than {format_duration(INSTALL_LIMIT_S)}"
        if code is None or words is None:
            return f"it {describe_end(seen)}" + (f": {words}" if words else "")
        return words

    # --- asking -----------------------------------------------------------------------------------------------------

    async def _ask(self, wish: Wish, python: str) -> Interpreter | str:
        """What this interpreter answers, or why it does not."""
        names = name_helper(self._work_dir)
        spec = probe_spec(wish, python, key=names.key, output=names.output, result=names.result)
        try:
            outcome = await run_helper(spec, link=self._link, answer_max=_ANSWER_MAX)
        except SpawnerError as error:
            return str(error)
        return read_answer(python, outcome.answer) or _why_not(outcome)


def _why_not(outcome: HelperOutcome) -> str:
    last = last_line(outcome.output)
    return describe_end(outcome.record) + (f": {last}" if last else "")
