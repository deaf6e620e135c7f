"""The composition root: builds every part, starts the loops, says when it is ready, and stops as it was asked to.

Invariants: no claim before every run of the last daemon was looked at; the API being away neither delays readiness
nor ends anything; a loop that ends by an exception ends the daemon, because a successor adopts everything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runnerd.access import access_of, credentials_of
from runnerd.backoff import Backoff
from runnerd.config import HostDefaults
from runnerd.control.server import ControlServer
from runnerd.directories import runs_dir, work_dir
from runnerd.drain import Drain
from runnerd.embedded import EmbeddedServer, embedded_url
from runnerd.errors import SpawnerError
from runnerd.host import DaemonHost, Feed
from runnerd.inspector import Inspector
from runnerd.journal import Journal
from runnerd.launcher import FlowLauncher
from runnerd.link import SpawnerLink
from runnerd.logs import Log
from runnerd.machine import RunRecord
from runnerd.model import EMBEDDED, ApiCondition, ApiHealth, Config, Problem
from runnerd.paths import Paths
from runnerd.poller import Poller
from runnerd.prefect_api.client import PrefectApi
from runnerd.pulse import Pulse
from runnerd.refresher import Refresher
from runnerd.registrar import Registrar
from runnerd.registry import Registry
from runnerd.reloading import ConfigInForce
from runnerd.run import Tools
from runnerd.spawner.client import SpawnerClient, start_spawner
from runnerd.spawner.protocol import Record
from runnerd.supervisor import Supervisor
from runnerd.systemd import Job, Systemd, boot_id, listen_fds
from runnerd.upkeep import adopt, keep_status, keep_watchdog, prune

_SPAWNER_START_S = 60.0
_STOP_SLICE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says beyond the directories."""

    once: bool = False


class Daemon:
    """One runnerd. `run` returns its exit status."""

    def __init__(
        self,
        *,
        paths: Paths,
        options: Options,
        defaults: HostDefaults,
        config: Config,
        journal: Journal,
        environ: Mapping[str, str],
        log: Log,
    ) -> None:
        self._paths = paths
        self._options = options
        self._environ = environ
        self._log = log
        self._journal = journal
        self._pulse = Pulse(clock=time.monotonic)
        self._systemd = Systemd(environ=environ, pid=os.getpid())
        self._hurry: asyncio.Queue[None] = asyncio.Queue()
        self._stop_asked = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        embedded = config.settings.api.url == EMBEDDED
        self._url = embedded_url(paths.state) if embedded else config.settings.api.url
        self.config = ConfigInForce(
            config=config, directory=paths.config, defaults=defaults, journal=journal, log=log, systemd=self._systemd
        )
        self._build()
        self._embedded = self._build_embedded() if embedded else None

    def _build(self) -> None:
        settings = self.config.settings
        credentials = credentials_of(lambda: settings().api, environ=self._environ, directory=self._paths.credentials)
        self.api = PrefectApi(
            url=self._url,
            credentials=credentials,
            headers=settings().api.headers,
            timeout_s=settings().api.request_timeout_s,
            now=_now,
            on_health=self._note_health,
        )
        self.registry = Registry()
        self.link = SpawnerLink(connect=self._spawner_client, start=self._start_spawner, log=self._log)
        launcher = FlowLauncher(
            registry=self.registry,
            access=access_of(self._url, lambda: settings().api, credentials),
            output_dir=runs_dir(self._paths),
            environ=self._environ,
        )
        self.feed = Feed()
        tools = Tools(
            api=self.api,
            link=self.link,
            journal=self._journal,
            launcher=launcher,
            log=self._log,
            now=_now,
            backoff=_backoff,
            boot_id=boot_id(),
            then=lambda: settings().stop.then,
            changed=self._note_run,
        )
        self.supervisor = Supervisor(
            tools=tools,
            registry=self.registry,
            caps=lambda: self.registry.caps(settings().limits),
            start_rate=lambda: settings().limits.start_rate_per_s,
            clock=time.monotonic,
            freed=lambda: self.poller.freed(),
        )
        self.poller = Poller(
            api=self.api,
            supervisor=self.supervisor,
            registry=self.registry,
            settings=settings,
            log=self._log,
            pulse=self._pulse,
            now=_now,
            backoff=_backoff,
            new_id=lambda: str(uuid.uuid4()),
        )
        self._build_registration(launcher)
        self.drain = Drain(supervisor=self.supervisor, now=_now)
        self._build_control()

    def _build_registration(self, launcher: FlowLauncher) -> None:
        inspector = Inspector(
            link=self.link, journal=self._journal, launcher=launcher, work_dir=work_dir(self._paths), log=self._log
        )
        self.registrar = Registrar(
            api=self.api,
            inspector=inspector,
            journal=self._journal,
            registry=self.registry,
            url=self._url,
            log=self._log,
            pulse=self._pulse,
            backoff=_backoff,
            registered=self._note_registered,
        )
        self.refresher = Refresher(
            api=self.api, registry=self.registry, registrar=self.registrar, pulse=self._pulse, now=_now
        )
        self.config.use(self.registrar)

    def _build_control(self) -> None:
        host = DaemonHost(
            url=self._url,
            api=self.api,
            supervisor=self.supervisor,
            poller=self.poller,
            registry=self.registry,
            refresher=self.refresher,
            journal=self._journal,
            link=self.link,
            drain=self.drain,
            pulse=self._pulse,
            feed=self.feed,
            config=lambda: self.config.current,
            reload=self.config.reload,
            problems=self._problems,
            backoff=_backoff,
            started_at=_now(),
        )
        sockets = [socket.socket(fileno=fd) for fd in listen_fds(self._environ, os.getpid())]
        self.control = ControlServer(
            host=host,
            log=self._log,
            socket_path=self._paths.control_socket,
            sockets=sockets,
            group="runnerd" if os.geteuid() == 0 else None,
        )

    def _build_embedded(self) -> EmbeddedServer:
        return EmbeddedServer(
            link=self.link,
            url=self._url,
            state_dir=self._paths.state,
            log_dir=self._paths.log,
            log=self._log,
            changed=lambda: None,
        )

    # --- the life of the daemon -------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until somebody asks to stop. Raises ControlError or SpawnerError when it cannot begin."""
        self._on_signals()
        await self.control.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks)
        finally:
            await self.control.close()
            await self.link.close()
            await self.api.close()
            self._journal.close()
        return 0

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        self.supervisor.attach(tasks)
        self._go(tasks, "spawner link", self.link.keep())
        await self._wait_for_spawner()
        if self._embedded is not None:
            self._go(tasks, "embedded server", self._embedded.keep())
        self.config.begin()
        await adopt(journal=self._journal, link=self.link, supervisor=self.supervisor, log=self._log)
        prune(journal=self._journal, settings=self.config.settings().journal, now=_now())
        self._systemd.ready()
        self._log.info("ready", config=self._paths.config, api=self._url, socket=self._paths.control_socket)
        self._go(tasks, "register", self.registrar.keep())
        self._go(tasks, "poll", self.poller.poll())
        self._go(tasks, "cancelling", self.poller.watch_cancelling())
        self._go(tasks, "refresh", self.refresher.keep())
        self._go(tasks, "drain", self.drain.keep())
        self._go(tasks, "reload", self._keep_reloading())
        self._go(tasks, "status", keep_status(systemd=self._systemd, text=self._status_text))
        self._go(tasks, "watchdog", keep_watchdog(systemd=self._systemd, pulse=self._pulse, log=self._log))
        self._go(tasks, "prune", self._keep_pruning())
        if self._options.once:
            self._go(tasks, "once", self._once())
        await self._stop_asked.wait()
        await self._stop()
        self.supervisor.detach()
        for task in self._background:
            task.cancel()

    def _go(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(tasks.create_task(work, name=name))

    async def _wait_for_spawner(self) -> None:
        try:
            async with asyncio.timeout(_SPAWNER_START_S):
                await self.link.wait_up()
        except TimeoutError:
            raise SpawnerError(self.link.problem or "cannot reach the spawner: it does not answer") from None

    async def _stop(self) -> None:
        """Hand over to the next daemon, or drain: `systemctl stop` is not `systemctl restart`."""
        hand_over = self._systemd.present and await self._systemd.job() is not Job.STOP
        if hand_over:
            self._log.info("handing over: flows run on for the next daemon", runs=len(self.supervisor.records()))
            self._systemd.stopping()
            return
        stop = self.config.settings().stop
        if self.drain.draining is None:
            self.drain.begin(reason="the host is stopping", timeout_s=stop.drain_timeout_s)
        runs = len(self.supervisor.records())
        self._log.info("draining", runs=runs, drain_timeout_s=stop.drain_timeout_s, then=stop.then)
        await self.drain.finish(hurry=self._hurry, extend=lambda: self._systemd.extend_timeout(_STOP_SLICE_S))
        if self._embedded is not None:
            await self._embedded.stop()
        self._systemd.stopping()
        left = [record.id for record in self.supervisor.records()]
        self._log.info("stopped", untold=", ".join(left) or None)

    async def _once(self) -> None:
        """--once: one poll, wait for its runs, stop."""
        await self.registrar.settled.wait()
        await self.poller.poll_once()
        await self.supervisor.emptied.wait()
        self._stop_asked.set()

    # --- signals ----------------------------------------------------------------------------------------------------

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)

    def _ask_stop(self) -> None:
        if self._stop_asked.is_set():
            self._hurry.put_nowait(None)
        self._stop_asked.set()

    async def _keep_reloading(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self.config.reload()

    async def _keep_pruning(self) -> None:
        while True:
            await asyncio.sleep(3600.0)
            prune(journal=self._journal, settings=self.config.settings().journal, now=_now())

    # --- what the parts tell ------------------------------------------------------------------------------------------

    def _note_health(self, health: ApiHealth) -> None:
        say = self._log.info if health.condition is ApiCondition.OK else self._log.warning
        say("api", state=health.condition, detail=health.detail, url=self._url)
        if health.condition is ApiCondition.OK:
            self.poller.kick()

    def _note_run(self, record: RunRecord) -> None:
        self.supervisor.note_change()
        self.feed.tell(record)

    def _note_registered(self) -> None:
        self.poller.kick()
        self.refresher.wake()

    def _problems(self) -> list[Problem]:
        """Everything an administrator has to mend."""
        found = [*self.config.problems(), *self.registrar.problems()]
        words = [
            self.link.problem,
            self.supervisor.journal_problem,
            self.poller.unsupported,
            self._embedded.problem if self._embedded else None,
        ]
        return [*found, *(Problem(message=text) for text in words if text)]

    def _status_text(self) -> str:
        health, runs = self.api.health, len(self.supervisor.records())
        api = "API ok" if health.condition is ApiCondition.OK else f"API {health.condition}: {health.detail}"
        draining = "; draining" if self.drain.draining else ""
        problems = len(self._problems())
        return f"{runs} running of {self.config.settings().limits.runs}, {api}{draining}" + (
            f"; {problems} problems, see runnerctl status" if problems else ""
        )

    # --- the spawner --------------------------------------------------------------------------------------------------

    def _spawner_client(self, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient:
        return SpawnerClient(socket_path=self._paths.spawner_socket, on_record=on_record, on_lost=on_lost)

    async def _start_spawner(self) -> None:
        await start_spawner(
            socket_path=self._paths.spawner_socket,
            runtime_dir=self._paths.spawner_dir,
            owner=os.geteuid(),
            log_file=os.path.join(self._paths.log, "spawner.log"),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _backoff() -> Backoff:
    return Backoff(first_s=0.5, cap_s=30.0)
