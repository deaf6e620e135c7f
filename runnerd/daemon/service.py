"""The life of the daemon: begin, adopt, say ready, serve, and stop as it was asked to.

Invariants: no claim before every run of the last daemon was looked at; the API being away neither delays readiness
nor ends anything; a loop that ends by an exception ends the daemon, because a successor adopts everything.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from runnerd.core.errors import SpawnerError
from runnerd.daemon.build import Daemon
from runnerd.daemon.options import Options
from runnerd.journal.pruning import keep_journal, keep_pruning
from runnerd.log.alerts import Alert
from runnerd.prefect_api.backoff import persist
from runnerd.processes.upgrading import keep_spawner_new
from runnerd.runs.adopting import adopt
from runnerd.runs.drain import first
from runnerd.system.systemd import Job
from runnerd.system.watchdog import keep_watchdog

EX_TEMPFAIL = 75  # runnerd.service: RestartForceExitStatus=
_SPAWNER_START_S = 60.0
_STOP_SLICE_S = 30.0


class Service:
    """One life. `run` returns the daemon's exit status."""

    def __init__(self, *, daemon: Daemon, options: Options) -> None:
        self._daemon = daemon
        self._options = options
        self._hurry: asyncio.Queue[None] = asyncio.Queue()
        self._stop_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._status = 0

    async def run(self) -> int:
        """Serve until somebody asks to stop. Raises ControlError or SpawnerError when it cannot begin."""
        daemon = self._daemon
        self._on_signals()
        await daemon.control.start()
        try:
            async with daemon.tasks:
                await self._serve()
        finally:
            await daemon.control.close()
            await daemon.link.close()
            await daemon.api.close()
            daemon.journal.close()
        return self._status

    async def _serve(self) -> None:
        daemon = self._daemon
        if self._options.journald is not None:
            self._go("log", self._options.journald.run())
        self._go("spawner link", daemon.link.run())
        await self._wait_for_spawner()
        if daemon.embedded is not None:
            self._go("embedded server", daemon.embedded.run())
        daemon.reloader.begin()
        await adopt(journal=daemon.journal, link=daemon.link, supervisor=daemon.supervisor, log=daemon.ambient.log)
        daemon.systemd.ready()
        said = {"config": daemon.paths.config, "api": daemon.api.url, "socket": daemon.paths.control_socket}
        daemon.ambient.log.info("ready", **said, alert=Alert.READY)
        self._options.ready()
        self._go("register", daemon.registrar.run())
        self._go("pools", daemon.pools.keeper.run())
        self._go("pool notes", daemon.pools.notes.run())
        self._go("cancellations", daemon.cancellations.run())
        self._go("refresh", daemon.refresher.run())
        self._go("drain", daemon.drain.run())
        self._go("reload", self._reload_when_asked())
        self._go("health and metrics", daemon.control.public.run(config=daemon.config))
        self._go("status", daemon.summary.run())
        self._go("watchdog", keep_watchdog(systemd=daemon.systemd, pulse=daemon.ambient.pulse, log=daemon.ambient.log))
        self._go("journal", keep_journal(journal=daemon.journal, wakes=daemon.wakes))
        pruning = keep_pruning(
            journal=daemon.journal, config=daemon.config, now=daemon.ambient.now, log=daemon.ambient.log
        )
        self._go("prune", pruning)
        self._go("renew spawner", keep_spawner_new(link=daemon.link, log=daemon.ambient.log))
        self._go("forward output", daemon.forwarder.run())
        if self._options.once:
            self._go("once", self._once())
        else:
            self._go("poll", daemon.poller.run())
        await self._stop_asked.wait()
        await self._stop()
        daemon.supervisor.detach()
        for task in self._background:
            task.cancel()

    def _go(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(self._daemon.tasks.create_task(work, name=name))

    async def _wait_for_spawner(self) -> None:
        """Raises SpawnerError when there is none; somebody who asks us to stop meanwhile need not wait for that."""
        up = asyncio.create_task(self._daemon.link.wait_up(), name="spawner is up")
        stop = asyncio.create_task(self._stop_asked.wait(), name="stop asked")
        try:
            await asyncio.wait({up, stop}, timeout=_SPAWNER_START_S, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                raise SpawnerError(self._daemon.link.problem or "cannot reach the spawner: it does not answer")
        finally:
            up.cancel()
            stop.cancel()

    async def _stop(self) -> None:
        """Hand over to the next daemon, or drain: `systemctl stop` is not `systemctl restart`."""
        daemon = self._daemon
        job = await daemon.systemd.job() if daemon.systemd.present else Job.STOP
        if job is not Job.STOP:
            # Nobody but us knows that a successor is wanted: without one the spawner would go, and the flows with it.
            self._status = EX_TEMPFAIL if job is Job.UNKNOWN else 0
            words, runs = "handing over: flows run on for the next daemon", len(daemon.supervisor.records())
            daemon.ambient.log.info(words, runs=runs, alert=Alert.HANDING_OVER)
            daemon.systemd.stopping()
            return
        stop = daemon.config.settings().stop
        daemon.drain.begin(reason="the host is stopping", timeout_s=stop.drain_timeout_s)
        runs = len(daemon.supervisor.records())
        bounds = {"drain_timeout_s": stop.drain_timeout_s, "then": stop.then}
        daemon.ambient.log.info("draining", runs=runs, **bounds, alert=Alert.DRAINING)

        def extend() -> None:
            daemon.systemd.extend_timeout(_STOP_SLICE_S)

        await daemon.drain.finish(hurry=self._hurry, extend=extend)
        # Prefect's own workers may take their stop_timeout; the spawner sees to that also where nobody waits for it.
        await first(daemon.pools.keeper.stop(), None, self._hurry, extend)
        if daemon.embedded is not None:
            await daemon.embedded.stop()
        daemon.systemd.stopping()
        left = [record.id for record in daemon.supervisor.records()]
        daemon.ambient.log.info("stopped", untold=", ".join(left) or None, alert=Alert.STOPPED)

    async def _once(self) -> None:
        """--once: one poll, wait for its runs, stop."""
        await self._daemon.registrar.settled.wait()
        await self._daemon.pools.keeper.tried.wait()
        await persist(self._daemon.poller.poll_once, backoff=self._daemon.ambient.backoff())
        await self._daemon.supervisor.emptied.wait()
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

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._daemon.reloader.reload()
