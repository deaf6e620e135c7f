"""The life of the daemon: begin, adopt, say ready, serve, and stop as it was asked to.

Invariants: no claim before every run of the last daemon was looked at; the API being away neither delays readiness
nor ends anything; a loop that ends by an exception ends the daemon, because a successor adopts everything.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runnerd.control.server import ControlServer
from runnerd.core.errors import SpawnerError
from runnerd.daemon.embedded import EmbeddedServer
from runnerd.daemon.reloading import ConfigInForce
from runnerd.daemon.summary import keep_status
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.journal.journal import Journal
from runnerd.journal.pruning import keep_journal, keep_pruning
from runnerd.log.alerts import Alert
from runnerd.log.journald import Journald
from runnerd.log.log import Log
from runnerd.output.forwarding import Forwarder
from runnerd.polling.cancellations import Cancelling
from runnerd.polling.poller import Poller
from runnerd.pools.build import PoolParts
from runnerd.prefect_api.backoff import Backoff, persist
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.processes.upgrading import keep_spawner_new
from runnerd.runs.adopting import adopt
from runnerd.runs.drain import Drain, first
from runnerd.runs.supervisor import Supervisor
from runnerd.system.systemd import Job, Systemd
from runnerd.system.watchdog import Pulse, keep_watchdog

EX_TEMPFAIL = 75  # runnerd.service: RestartForceExitStatus=
_SPAWNER_START_S = 60.0
_STOP_SLICE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line and its surroundings say beyond the directories."""

    once: bool = False
    ready: Callable[[], None] = lambda: None  # called when it is
    hangup: Callable[[], None] = lambda: None  # called at each SIGHUP at once; the reload may have to wait
    journald: Journald | None = None  # where our log goes, and with it what the flows print


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a daemon consists of. `ready`: what its log says when it is; `changed`: set when its status may differ."""

    api: PrefectApi
    cancelling: Cancelling
    changed: asyncio.Event
    config: ConfigInForce
    control: ControlServer
    drain: Drain
    embedded: EmbeddedServer | None
    forwarder: Forwarder
    journal: Journal
    link: SpawnerLink
    log: Log
    poller: Poller
    pools: PoolParts
    pulse: Pulse
    refresher: Refresher
    registrar: Registrar
    supervisor: Supervisor
    systemd: Systemd
    status_text: Callable[[], str]
    ready: Mapping[str, str]


class Service:
    """One life. `run` returns the daemon's exit status."""

    def __init__(self, *, parts: Parts, options: Options) -> None:
        self._parts = parts
        self._options = options
        self._hurry: asyncio.Queue[None] = asyncio.Queue()
        self._stop_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._status = 0

    async def run(self) -> int:
        """Serve until somebody asks to stop. Raises ControlError or SpawnerError when it cannot begin."""
        parts = self._parts
        self._on_signals()
        await parts.control.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks)
        finally:
            await parts.control.close()
            await parts.link.close()
            await parts.api.close()
            parts.journal.close()
        return self._status

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        parts = self._parts
        parts.supervisor.attach(tasks)
        if self._options.journald is not None:
            self._go(tasks, "log", self._options.journald.keep())
        self._go(tasks, "spawner link", parts.link.keep())
        await self._wait_for_spawner()
        if parts.embedded is not None:
            self._go(tasks, "embedded server", parts.embedded.keep())
        parts.config.begin()
        await adopt(journal=parts.journal, link=parts.link, supervisor=parts.supervisor, log=parts.log)
        parts.systemd.ready()
        parts.log.info("ready", **parts.ready, alert=Alert.READY)
        self._options.ready()
        self._go(tasks, "register", parts.registrar.keep())
        self._go(tasks, "pools", parts.pools.keeper.keep())
        self._go(tasks, "pool notes", parts.pools.notes.keep())
        self._go(tasks, "cancelling", parts.cancelling.watch())
        self._go(tasks, "refresh", parts.refresher.keep())
        self._go(tasks, "drain", parts.drain.keep())
        self._go(tasks, "reload", self._keep_reloading())
        self._go(tasks, "health and metrics", self._keep_public())
        self._go(tasks, "status", keep_status(systemd=parts.systemd, text=parts.status_text, changed=parts.changed))
        self._go(tasks, "watchdog", keep_watchdog(systemd=parts.systemd, pulse=parts.pulse, log=parts.log))
        self._go(tasks, "journal", keep_journal(journal=parts.journal, healed=parts.poller.freed))
        self._go(tasks, "prune", self._keep_pruning())
        self._go(tasks, "renew spawner", keep_spawner_new(link=parts.link, log=parts.log))
        self._go(tasks, "forward output", parts.forwarder.keep())
        if self._options.once:
            self._go(tasks, "once", self._once())
        else:
            self._go(tasks, "poll", parts.poller.poll())
        await self._stop_asked.wait()
        await self._stop()
        parts.supervisor.detach()
        for task in self._background:
            task.cancel()

    def _go(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(tasks.create_task(work, name=name))

    async def _wait_for_spawner(self) -> None:
        """Raises SpawnerError when there is none; somebody who asks us to stop meanwhile need not wait for that."""
        up = asyncio.create_task(self._parts.link.wait_up(), name="spawner is up")
        stop = asyncio.create_task(self._stop_asked.wait(), name="stop asked")
        try:
            await asyncio.wait({up, stop}, timeout=_SPAWNER_START_S, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                raise SpawnerError(self._parts.link.problem or "cannot reach the spawner: it does not answer")
        finally:
            up.cancel()
            stop.cancel()

    async def _stop(self) -> None:
        """Hand over to the next daemon, or drain: `systemctl stop` is not `systemctl restart`."""
        parts = self._parts
        job = await parts.systemd.job() if parts.systemd.present else Job.STOP
        if job is not Job.STOP:
            # Nobody but us knows that a successor is wanted: without one the spawner would go, and the flows with it.
            self._status = EX_TEMPFAIL if job is Job.UNKNOWN else 0
            words, runs = "handing over: flows run on for the next daemon", len(parts.supervisor.records())
            parts.log.info(words, runs=runs, alert=Alert.HANDING_OVER)
            parts.systemd.stopping()
            return
        stop = parts.config.settings().stop
        parts.drain.begin(reason="the host is stopping", timeout_s=stop.drain_timeout_s)
        runs = len(parts.supervisor.records())
        bounds = {"drain_timeout_s": stop.drain_timeout_s, "then": stop.then}
        parts.log.info("draining", runs=runs, **bounds, alert=Alert.DRAINING)

        def extend() -> None:
            parts.systemd.extend_timeout(_STOP_SLICE_S)

        await parts.drain.finish(hurry=self._hurry, extend=extend)
        # Prefect's own workers may take their stop_timeout; the spawner sees to that also where nobody waits for it.
        await first(parts.pools.keeper.stop(), None, self._hurry, extend)
        if parts.embedded is not None:
            await parts.embedded.stop()
        parts.systemd.stopping()
        left = [record.id for record in parts.supervisor.records()]
        parts.log.info("stopped", untold=", ".join(left) or None, alert=Alert.STOPPED)

    async def _once(self) -> None:
        """--once: one poll, wait for its runs, stop."""
        await self._parts.registrar.settled.wait()
        await self._parts.pools.keeper.tried.wait()
        await persist(self._parts.poller.poll_once, backoff=Backoff())
        await self._parts.supervisor.emptied.wait()
        self._stop_asked.set()

    # --- signals ----------------------------------------------------------------------------------------------------

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        self._options.hangup()
        self._reload_asked.set()

    def _ask_stop(self) -> None:
        if self._stop_asked.is_set():
            self._hurry.put_nowait(None)
        self._stop_asked.set()

    async def _keep_reloading(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._parts.config.reload()

    async def _keep_public(self) -> None:
        config = self._parts.config
        await self._parts.control.public.keep(wanted=lambda: config.settings().http_listen, replaced=config.replaced)

    async def _keep_pruning(self) -> None:
        parts = self._parts
        await keep_pruning(
            journal=parts.journal, settings=lambda: parts.config.settings().journal, now=_now, log=parts.log
        )


def _now() -> datetime:
    return datetime.now(UTC)
