"""Runs the daemon: start, adopt runs, notify readiness, run the main loops, and stop or hand over.

Invariants: no run is claimed before every run of the last daemon was adopted or settled; an API that is away neither
delays readiness nor ends the daemon; the loops that use its answers contain what one item makes go wrong; an exception
in any other loop ends the daemon, because the next one adopts the runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from runnerd.core.errors import SpawnerError
from runnerd.core.settings import StopSettings
from runnerd.daemon.build import Daemon
from runnerd.daemon.embedded import STOP_TIMEOUT_S
from runnerd.daemon.options import Options
from runnerd.daemon.stopping import Stop, stop_in_order
from runnerd.journal.pruning import prune_periodically, recover_journal
from runnerd.log.alerts import Alert
from runnerd.prefect_api.backoff import persist
from runnerd.processes.upgrading import SpawnerUpgrade
from runnerd.runs.adopting import adopt
from runnerd.runs.drain import wait_first
from runnerd.system.systemd import Job
from runnerd.system.watchdog import feed_watchdog

EX_TEMPFAIL = 75  # runnerd.service: RestartForceExitStatus=
_SPAWNER_START_S = 60.0
_STOP_SLICE_S = 30.0
_NOTICES_S = 30.0  # that --once gives to the first attempts of notices; the next daemon sends the rest
_CANCEL_AGAIN_S = 5.0  # more than what any task does in its end takes


class Service:
    """Runs one daemon from its start to its stop."""

    def __init__(self, *, daemon: Daemon, options: Options) -> None:
        self._daemon = daemon
        self._options = options
        self._later_stops: asyncio.Queue[None] = asyncio.Queue()  # one item per SIGTERM or SIGINT after the first
        self._stop_requested = asyncio.Event()
        self._reload_requested = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._status = 0

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. Raises ControlError or SpawnerError at the start."""
        daemon = self._daemon
        self._handle_signals()
        await daemon.control.start()
        try:
            async with daemon.tasks:
                await self._serve()
        finally:
            await daemon.control.close()
            await daemon.pools.jobs.close()
            await daemon.link.close()
            await daemon.api.close()
            daemon.journal.close()
        return self._status

    async def _serve(self) -> None:
        daemon = self._daemon
        if self._options.journald is not None:
            self._start_task("log", self._options.journald.run())
        self._start_task("spawner link", daemon.link.run())
        await self._wait_for_spawner()
        if daemon.embedded is not None:
            self._start_task("embedded server", daemon.embedded.run())
        daemon.reloader.begin()
        await adopt(journal=daemon.journal, link=daemon.link, supervisor=daemon.supervisor, log=daemon.ambient.log)
        if not self._stop_requested.is_set():  # which may have come before there is a spawner
            self._announce_ready()
        self._start_registering()
        self._start_task("pools", daemon.pools.keeper.run())
        self._start_task("warm interpreters", daemon.warm.keeper.run())
        self._start_task("pool notes", daemon.pools.outbox.run())
        self._start_task("events", daemon.events.run())
        self._start_task("cancellations", daemon.cancellations.run())
        self._start_task("look-ups", daemon.poller.look_ups.run())
        self._start_task("receipts", daemon.receipt_checks.run())
        self._start_task("refresh", daemon.refresher.run())
        self._start_task("recheck", daemon.rechecker.run())
        self._start_task("drain", daemon.drain.run())
        self._start_task("credentials", daemon.credentials.run())
        self._start_task("reload", self._run_reloads())
        self._start_task("health and metrics", daemon.control.public.run(config=daemon.config))
        self._start_task("status", daemon.summary.run())
        watchdog = feed_watchdog(systemd=daemon.systemd, pulse=daemon.ambient.pulse, log=daemon.ambient.log)
        self._start_task("watchdog", watchdog)
        self._start_upkeep()
        if self._options.once:
            self._start_task("once", self._run_once())
        else:
            self._start_task("poll", daemon.poller.run())
        await self._stop_requested.wait()
        await self._stop()
        daemon.supervisor.detach()
        daemon.warm.table.detach()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        """Cancel the tasks until all have ended: where a library loses a cancel, a stopped daemon would run on."""
        running = set(self._background)
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
            if running:
                names = ", ".join(sorted(task.get_name() for task in running))
                self._daemon.ambient.log.warning("tasks have not ended; they are cancelled again", of=names)

    def _announce_ready(self) -> None:
        daemon = self._daemon
        daemon.systemd.notify_ready()
        fields = {"config": daemon.paths.config, "api": daemon.api.url, "socket": daemon.paths.control_socket}
        daemon.ambient.log.info("ready", **fields, alert=Alert.READY)
        self._options.ready()

    def _start_registering(self) -> None:
        self._start_task("register", self._daemon.registrar.run())
        self._start_task("scripts", self._daemon.scripts.run())
        self._start_task("served scripts", self._daemon.reloader.run_scripts())

    def _start_upkeep(self) -> None:
        """Start the loops that look after sources, the journal, the disks, the output, notices and the spawner."""
        daemon = self._daemon
        self._start_task("sources", daemon.sources.run())
        self._start_task("trees of sources", daemon.relocator.run())
        self._start_task("resume schedules", daemon.pauses.resume())
        self._start_task("automations", daemon.automations.run())
        self._start_task("shutdown", self._wait_for_shutdown())
        self._start_task("journal", recover_journal(journal=daemon.journal, wakes=daemon.wakes))
        pruning = prune_periodically(
            journal=daemon.journal, config=daemon.config, now=daemon.ambient.now, log=daemon.ambient.log
        )
        self._start_task("prune", pruning)
        self._start_task("bound output", daemon.output.total_bound.run())
        upgrade = SpawnerUpgrade(
            link=daemon.link,
            wanted=daemon.wanted_spawner,
            server=daemon.embedded,
            spares=daemon.warm.table,
            has_runs=lambda: bool(daemon.supervisor.records()),
            log=daemon.ambient.log,
        )
        self._start_task("renew spawner", upgrade.run())
        self._start_task("notices", daemon.notices.queue.run())
        self._start_task("forward output", daemon.output.forwarder.run())
        self._start_task("logs of commands", daemon.output.command_logs.run())
        self._start_task("disk room", daemon.room.run(busy=lambda: bool(daemon.supervisor.ids())))

    def _start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(self._daemon.tasks.create_task(work, name=name))

    async def _wait_for_spawner(self) -> None:
        """Wait for the spawner or for a request to stop. Raises SpawnerError after _SPAWNER_START_S without either."""
        up = asyncio.create_task(self._daemon.link.wait_until_connected(), name="spawner is up")
        stop = asyncio.create_task(self._stop_requested.wait(), name="stop requested")
        try:
            await asyncio.wait({up, stop}, timeout=_SPAWNER_START_S, return_when=asyncio.FIRST_COMPLETED)
            if not up.done() and not stop.done():
                raise SpawnerError(self._daemon.link.problem or "cannot reach the spawner: it does not answer")
        finally:
            up.cancel()
            stop.cancel()

    async def _stop(self) -> None:
        """Hand over to the next daemon at `systemctl restart`; drain at `systemctl stop`."""
        daemon = self._daemon
        # First: on a busy host the question below may take as long as a short TimeoutStopSec.
        daemon.systemd.extend_timeout(_STOP_SLICE_S)
        asked = daemon.wakes.shutdown.is_set()  # of which no job of systemd tells
        job = await daemon.systemd.find_job() if daemon.systemd.present and not asked else Job.STOP
        if job is not Job.STOP:
            # Without a job systemd would not start a successor, and would stop the spawner with the flows.
            # EX_TEMPFAIL makes systemd restart the unit.
            self._status = EX_TEMPFAIL if job is Job.UNKNOWN else 0
            event, runs = "handing over: flows run on for the next daemon", len(daemon.supervisor.records())
            daemon.ambient.log.info(event, runs=runs, alert=Alert.HANDING_OVER)
            await daemon.warm.keeper.hand_over()
            daemon.systemd.notify_stopping()
            return
        stop = daemon.config.settings().stop
        daemon.drain.begin_stop(timeout_s=stop.drain_timeout_s)
        runs = len(daemon.supervisor.records())
        bounds = {"drain_timeout_s": stop.drain_timeout_s, "then": stop.then}
        daemon.ambient.log.info("draining", runs=runs, **bounds, alert=Alert.DRAINING)

        def extend() -> None:
            daemon.systemd.extend_timeout(_STOP_SLICE_S)

        # Once and in the loop's own time: what it pauses makes no more runs while the flows end.
        pausing = asyncio.ensure_future(self._pause_schedules(stop))
        unended = await daemon.drain.finish(hurry=self._later_stops, extend=extend)
        await wait_first(asyncio.wait({pausing}), None, asyncio.Queue(), extend)
        unended += await stop_in_order(self._stops(), hurry=self._later_stops, extend=extend)
        daemon.systemd.notify_stopping()
        if unended:
            why = daemon.journal.problem or daemon.link.problem or "they have not ended in time"
            daemon.ambient.log.error("stopping; processes may be left", of=", ".join(unended), why=why)
        left = [record.id for record in daemon.supervisor.records()]
        daemon.ambient.log.info("stopped", unreported=", ".join(left) or None, alert=Alert.STOPPED)

    async def _pause_schedules(self, stop: StopSettings) -> None:
        """Pause the deployments where the configuration says so; a single poll (--once) is no service that stops."""
        if not self._options.once:
            await self._daemon.pauses.pause(unsaid=stop.pause_schedules)

    def _stops(self) -> list[Stop]:
        """Return what is stopped after the last flow, which may need it."""
        daemon = self._daemon
        timeouts_s = [served.settings.run.stop_timeout_s for served in daemon.pools.keeper.entries()]
        workers = Stop(what="work pools", make=daemon.pools.keeper.stop, timeout_s=max(timeouts_s, default=0.0))
        warm = Stop(what="warm interpreters", make=daemon.warm.keeper.stop, timeout_s=1.0)
        if daemon.embedded is None:
            return [workers, warm]
        return [workers, warm, Stop(what="embedded server", make=daemon.embedded.stop, timeout_s=STOP_TIMEOUT_S)]

    async def _run_once(self) -> None:
        """Carry out --once: poll once, wait for the runs, stop."""
        await self._daemon.served.wait_until_entered()
        await self._daemon.registrar.settled.wait()
        await self._daemon.pools.keeper.tried.wait()
        await persist(self._daemon.poller.poll_once, backoff=self._daemon.ambient.backoff())
        await self._daemon.supervisor.emptied.wait()
        await self._daemon.notices.queue.settle(_NOTICES_S)
        self._stop_requested.set()

    # --- signals ----------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop)
        loop.add_signal_handler(signal.SIGHUP, self._request_reload)

    def _request_reload(self) -> None:
        self._options.hangup()
        self._reload_requested.set()

    async def _wait_for_shutdown(self) -> None:
        """Stop as at `systemctl stop` when that is asked for over HTTP."""
        await self._daemon.wakes.shutdown.wait()
        if not self._stop_requested.is_set():  # a second request is no second SIGTERM, which ends flows at once
            self._request_stop()

    def _request_stop(self) -> None:
        if self._stop_requested.is_set():
            self._later_stops.put_nowait(None)
        self._stop_requested.set()

    async def _run_reloads(self) -> None:
        while True:
            await self._reload_requested.wait()
            self._reload_requested.clear()
            # Only a SIGHUP comes from a systemd that waits for this (Type=notify-reload). Told of any other reload,
            # systemd would skip ExecStop= in a stop during it: without its list of jobs, no stop would drain.
            self._daemon.systemd.notify_reloading()
            try:
                await self._daemon.reloader.reload()
            finally:
                self._daemon.systemd.notify_ready()
