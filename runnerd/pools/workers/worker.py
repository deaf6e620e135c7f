"""Prefect's own worker for a pool of a type that is not ours (docker, kubernetes, ecs, ...): a supervised child.

Invariants: it belongs to the spawner and outlives the daemon; it runs as the pool's user with nothing but that user's
environment and the access to Prefect; it is started anew exactly when what it is started from has changed; what it says
of its own trouble is told, also while it runs on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection

import psutil

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
    Interpreter,
    Wish,
    family,
    install_family,
    label,
    package_of,
    worker_spec,
)
from runnerd.pools.workers.environment import WorkerHome
from runnerd.pools.workers.output import WorkerOutput
from runnerd.prefect_api.answers import ServerInfo
from runnerd.processes.link import SpawnerLink
from runnerd.processes.long_lived import LongLived, ProcessState, RestartDelays, Unready, stop_and_forget
from runnerd.processes.protocol import Record
from runnerd.system.directories import work_dir
from runnerd.system.paths import Paths

LOOK_S = 5.0
_RUNS_ON = "; it runs on as it was started before"
FRESH_S = 900.0  # how long an error of a worker that runs on is told


class ForeignWorker:
    """The worker of one pool; `want` says as what, before `run` and whenever something may have changed."""

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
        """`name` is the worker's among those of its pool; `access` is asked at each `want`: a key may be rotated."""
        self._pool = pool
        self._environments = environments
        self._access = access
        self._name = name
        self._log = log
        self._home = WorkerHome(pool=pool, link=link, work_dir=work_dir(paths), log_dir=paths.log, log=log)
        self._output = WorkerOutput(
            path=os.path.join(paths.log, f"worker-{label(pool)}.log"), clock=lambda: asyncio.get_running_loop().time()
        )
        self._kept = LongLived(
            link=link,
            wanted_key=lambda: self._wish.key if self._wish is not None else None,
            owns=lambda key: key.startswith(family(pool)),
            make_spec=self._make_spec,
            on_running=self._began,
            on_failure=self._ended,
            before_start=self._output.begin,
            delays=delays,
        )
        self._wish: Wish | None = None
        self._unwanted: str | None = None  # why it cannot be wished for
        self._type = "?"
        self._interpreter: Interpreter | None = None
        self._python: str | None = None  # what it runs with
        self._unready = False  # it could not be started; else it was, and has ended
        self._said: str | None = None  # its last words then
        self._told: str | None = None  # why it could not be started, as the log has it

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, served: Served, *, kind: WorkerType | None, server: ServerInfo) -> None:
        """Be the worker of this pool as it is now. Cheap where nothing has changed."""
        assert served.pool is not None
        self._type = served.pool.type
        wish = self._wish_for(served, kind, server)
        if isinstance(wish, str):
            self._unwanted = wish
            return  # a file that cannot be read for a moment must not end what runs
        self._unwanted = None
        if (wish and wish.key) != (self._wish and self._wish.key):
            self._wish = wish
            self._kept.wake()

    def _wish_for(self, served: Served, kind: WorkerType | None, server: ServerInfo) -> Wish | str | None:
        settings = served.settings
        chosen = bool(settings.queues or settings.match)
        if chosen and not served.queues:
            return None  # without a name Prefect's worker would take from every queue
        environment = self._environments.merged(settings.run)
        if isinstance(environment, str):
            return environment
        return Wish(
            settings=settings,
            type=self._type,
            package=package_of(kind),
            server=server,
            queues=tuple(sorted(queue.name for queue in served.queues)) if chosen else (),
            name=self._name(),
            environment=environment,
            access=self._access(),
        )

    # --- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep it running; being cancelled leaves it as it is, for the next daemon."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._keep_looking(), name=f"output of the worker of {self._pool}")
            await self._kept.run()
            looking.cancel()

    async def stop(self) -> None:
        """End it politely: the pool is not served any more, or the host stops."""
        await asyncio.gather(self._kept.stop(), self._home.stop())

    async def _keep_looking(self) -> None:
        while True:
            self._output.look()
            await asyncio.sleep(LOOK_S)

    async def _make_spec(self) -> LaunchSpec | Unready:
        wish = self._wish
        assert wish is not None, "it is not asked what to start before something is wanted"
        python = await self._home.interpreter(wish)
        if isinstance(python, Unready):
            return python
        self._interpreter = python
        return worker_spec(wish, python, output=self._output.path)

    def _began(self, seen: Record, fresh: bool) -> None:
        pid = seen.identity.pid if seen.identity is not None else None
        if not fresh:
            self._output.begin(fresh=False)
            self._python = _program_of(pid)
        else:
            self._python = self._interpreter.python if self._interpreter is not None else None
        self._told = None
        self._log.info("Prefect's worker runs", pool=self._pool, type=self._type, pid=pid, found=not fresh or None)

    def _ended(self, words: str, again_in_s: float) -> None:
        self._unready = self._kept.state is ProcessState.FAILED
        self._said = said = None if self._unready else self._output.last_words()
        about: dict[str, Json] = {"words": words, "said": said, "output": self._output.path, "again_in_s": again_in_s}
        if self._unready and words == self._told:  # it is tried again and again, and said once
            self._log.debug("Prefect's worker still does not run", pool=self._pool, **about)
            return
        self._told = words if self._unready else None
        self._log.error("Prefect's worker does not run", pool=self._pool, **about, alert=Alert.WORKER_ENDED)

    # --- for people --------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        who = f"Prefect's {self._type} worker of work pool {self._pool}"
        runs = self._kept.find_live_record() is not None
        if self._unwanted is not None:
            return f"{who} cannot be started: {self._unwanted}" + (_RUNS_ON if runs else "")
        trouble = self._trouble(who) if self._kept.state is ProcessState.RUNNING else None
        if trouble is not None or self._kept.problem is None:
            return trouble
        if self._unready:
            return f"{who} {self._kept.problem}" + (_RUNS_ON if runs else "")
        said = f": {self._said}" if self._said else ""
        again = "; it runs again" if self._kept.state is ProcessState.RUNNING else ""
        return f"{who} ended: {self._kept.problem}{said}{again}; see {self._output.path}"

    def _trouble(self, who: str) -> str | None:
        """Of one that runs on."""
        error, at = self._output.findings.error, self._output.error_at
        if error is None or at is None or asyncio.get_running_loop().time() - at > FRESH_S:
            return None
        times = f" ({self._output.findings.errors} errors so far)" if self._output.findings.errors > 1 else ""
        return f"{who} runs, and says: {error}{times}; see {self._output.path}"

    def document(self) -> dict[str, Json]:
        """For `status`."""
        seen, wish = self._kept.find_live_record(), self._wish
        return {
            "state": self._state(),
            "pid": seen.identity.pid if seen is not None and seen.identity is not None else None,
            "since": time_text(seen.started_at) if seen is not None else None,
            "restarts": self._kept.restarts,
            "package": wish.package if wish is not None else None,
            "python": self._python,
            "output": self._output.path,
            "errors": self._output.findings.errors,
            "problem": self.problem,
        }

    def _state(self) -> str:
        if self._home.installing:
            return "installing"
        state = self._kept.state
        return (ProcessState.WAITING if state is ProcessState.PREPARING else state).value


async def end_leftovers(link: SpawnerLink, *, pools: Collection[str]) -> list[str]:
    """End workers and installations of pools that are none of these: a daemon that is gone has left them.

    The keys that were ended. They are ended one after the other, politely.
    """
    kept = tuple(prefix for pool in pools for prefix in (family(pool), install_family(pool)))
    ended = [
        seen
        for seen in link.records()
        if seen.key.startswith((KEY_PREFIX, INSTALL_PREFIX)) and not seen.key.startswith(kept)
    ]
    for seen in ended:
        await stop_and_forget(link, seen, changed=asyncio.Event())
    return [seen.key for seen in ended]


def _program_of(pid: int | None) -> str | None:
    """Of a process that an earlier daemon has started."""
    try:
        return psutil.Process(pid).cmdline()[0] if pid is not None else None
    except (psutil.Error, IndexError):
        return None
