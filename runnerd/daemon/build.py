"""The composition root: every part of the daemon is built here and given to the others by keyword."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from runnerd.config import HostDefaults
from runnerd.control.backend.asking import Ask
from runnerd.control.backend.host import DaemonHost, Feed
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.server import ControlServer
from runnerd.core.machine import Hook, Phase, RunRecord
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.core.settings import EMBEDDED, Config
from runnerd.daemon.embedded import EmbeddedServer, embedded_url
from runnerd.daemon.reloading import ConfigInForce
from runnerd.daemon.service import Options, Parts, Service
from runnerd.daemon.summary import Summary
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Registry
from runnerd.doctor.doctor import Doctor
from runnerd.doctor.subject import Patient
from runnerd.journal.journal import Journal
from runnerd.launch.api_access import access_of, credentials_of
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Launchers
from runnerd.log.api_news import ApiNews
from runnerd.log.log import Log
from runnerd.output.forwarding import Forwarder
from runnerd.polling.cancellations import Cancelling
from runnerd.polling.poller import Poller
from runnerd.pools.build import build_pools
from runnerd.prefect_api.backoff import Backoff
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.processes.locating import SpawnerAt
from runnerd.runs.drain import Drain
from runnerd.runs.record_keeper import Tools
from runnerd.runs.supervisor import Supervisor
from runnerd.system.directories import runs_dir, work_dir
from runnerd.system.paths import Paths
from runnerd.system.systemd import Systemd, listen_fds
from runnerd.system.watchdog import Pulse


def _now() -> datetime:
    return datetime.now(UTC)


def _backoff() -> Backoff:
    return Backoff(first_s=0.5, cap_s=30.0)


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


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
        now: Callable[[], datetime] = _now,
        backoff: Callable[[], Backoff] = _backoff,
    ) -> None:
        """`now` is the wall clock and `backoff` how each caller waits for the API; tests have others."""
        self._paths = paths
        self._options = options
        self._environ = environ
        self._log = log
        self._journal = journal
        self._now = now
        self._backoff = backoff
        self._changed = asyncio.Event()
        self._pulse = Pulse(clock=time.monotonic)
        self._systemd = Systemd(environ=environ, pid=os.getpid())
        embedded = config.settings.api.url == EMBEDDED
        self._url = embedded_url(paths.state) if embedded else config.settings.api.url
        self._news = ApiNews(url=self._url, log=log, later=_later)
        self.config = ConfigInForce(
            config=config,
            directory=paths.config,
            defaults=defaults,
            journal=journal,
            log=log,
            systemd=self._systemd,
            reloaded=self._changed.set,
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
            now=self._now,
            on_health=self._note_health,
        )
        self.registry = Registry()
        at = SpawnerAt(self._paths)
        self.link = SpawnerLink(connect=at.client, start=at.start, log=self._log)
        access = access_of(self._url, lambda: settings().api, credentials)
        environments = Environments(environ=self._environ)
        launcher = FlowLauncher(
            registry=self.registry, access=access, output_dir=runs_dir(self._paths), environments=environments
        )
        self.pools = build_pools(
            api=self.api,
            link=self.link,
            environments=environments,
            access=access,
            paths=self._paths,
            worker=lambda: settings().name,
            draining=lambda: self.drain.draining is not None,
            found=lambda: self.poller.kick(),
            now=self._now,
            backoff=self._backoff,
            pulse=self._pulse,
            log=self._log,
        )
        self._build_engine(launcher)
        self._build_registration(environments)
        self._build_summary()
        self._build_control(self._doctor(environments))

    def _build_engine(self, launcher: FlowLauncher) -> None:
        settings, pools = self.config.settings, self.pools
        self.feed = Feed()
        tools = Tools(
            api=self.api,
            link=self.link,
            journal=self._journal,
            launcher=Launchers(own=launcher, pools=pools.launcher),
            log=self._log,
            now=self._now,
            backoff=self._backoff,
            then=lambda: settings().stop.then,
            hooked=self._hooked,
            changed=self._note_run,
        )
        self.supervisor = Supervisor(
            tools=tools,
            registry=self.registry,
            caps=lambda: self.registry.caps(settings().limits, pools=pools.table.caps()),
            start_rate=lambda: settings().limits.start_rate_per_s,
            clock=time.monotonic,
            freed=lambda: self.poller.freed(),
        )
        journald, records, log = self._options.journald, self.supervisor.records, self._log
        self._forwarder = Forwarder(journald=journald, paths=self._paths, records=records, settings=settings, log=log)
        self.poller = Poller(
            api=self.api,
            supervisor=self.supervisor,
            registry=self.registry,
            pools=pools.offers,
            settings=settings,
            log=self._log,
            pulse=self._pulse,
            now=self._now,
            backoff=self._backoff,
            new_id=lambda: str(uuid.uuid4()),
        )
        self.cancelling = Cancelling(
            api=self.api, supervisor=self.supervisor, settings=settings, pulse=self._pulse, backoff=self._backoff
        )
        self.drain = Drain(supervisor=self.supervisor, now=self._now, changed=self.pools.keeper.look)

    def _build_summary(self) -> None:
        self.summary = Summary(
            config=self.config,
            registrar=self.registrar,
            pools=self.pools.keeper,
            poller=self.poller,
            supervisor=self.supervisor,
            drain=self.drain,
            link=self.link,
            journal=self._journal,
            health=lambda: self.api.health,
            embedded=lambda: self._embedded.problem if self._embedded else None,
            public=lambda: self.control.public.problem,
        )

    def _build_registration(self, environments: Environments) -> None:
        self.inspector = Inspector(
            link=self.link, journal=self._journal, environments=environments, work_dir=work_dir(self._paths)
        )
        self.registrar = Registrar(
            api=self.api,
            inspector=self.inspector,
            journal=self._journal,
            registry=self.registry,
            url=self._url,
            log=self._log,
            pulse=self._pulse,
            backoff=self._backoff,
            registered=self._note_registered,
        )
        self.refresher = Refresher(
            api=self.api, registry=self.registry, registrar=self.registrar, pulse=self._pulse, now=_now
        )
        self.config.use(self.registrar, pools=self.pools.table)

    def _doctor(self, environments: Environments) -> Doctor:
        patient = Patient(
            url=self._url,
            api=self.api,
            config=lambda: self.config.current,
            problems=self.config.problems,
            embedded=lambda: self._embedded.problem if self._embedded else None,
            registry=self.registry,
            pools=self.pools.table,
            pool_problems=self.pools.keeper.problems,
            environments=environments,
            journal=self._journal,
            link=self.link,
            pulse=self._pulse,
            systemd=self._systemd,
            paths=self._paths,
            environ=self._environ,
        )
        return Doctor(patient=patient, log=self._log)

    def _build_control(self, doctor: Doctor) -> None:
        ask = Ask(backoff=self._backoff)
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
            served=self.pools.keeper.documents,
            open_pools=lambda: {served.name for served in self.pools.offers.open()},
            feed=self.feed,
            config=lambda: self.config.current,
            reload=self.config.reload,
            problems=self.summary.problems,
            doctor=doctor.examine,
            ask=ask,
            pools=PoolsBackend(api=self.api, ask=ask, now=self._now, served=self.pools.table.names),
            started_at=self._now(),
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
        state, log_dir = self._paths.state, self._paths.log
        return EmbeddedServer(link=self.link, url=self._url, state_dir=state, log_dir=log_dir, log=self._log)

    async def run(self) -> int:
        """Serve until somebody asks to stop. Raises ControlError or SpawnerError when it cannot begin."""
        parts = Parts(
            api=self.api,
            cancelling=self.cancelling,
            changed=self._changed,
            config=self.config,
            control=self.control,
            drain=self.drain,
            embedded=self._embedded,
            forwarder=self._forwarder,
            journal=self._journal,
            link=self.link,
            log=self._log,
            poller=self.poller,
            pools=self.pools,
            pulse=self._pulse,
            refresher=self.refresher,
            registrar=self.registrar,
            supervisor=self.supervisor,
            systemd=self._systemd,
            status_text=self.summary.line,
            ready={"config": self._paths.config, "api": self._url, "socket": self._paths.control_socket},
        )
        return await Service(parts=parts, options=self._options).run()

    # --- what the parts tell ------------------------------------------------------------------------------------------

    def _note_health(self, health: ApiHealth) -> None:
        self._news.note(health)
        self._changed.set()
        if health.condition is ApiCondition.OK:
            self.poller.kick()

    def _note_run(self, record: RunRecord) -> None:
        self.supervisor.note_change()
        self.feed.tell(record)
        self._forwarder.note(record)
        self.pools.notes.note(record)
        self._changed.set()
        if record.phase is Phase.STARTING:
            self.refresher.wake()  # its deployment's next start is another one now

    def _hooked(self, record: RunRecord, hook: Hook) -> bool:
        if record.pool is not None and record.failure is not None:
            return False  # what could not be prepared for its flow cannot be for its hooks
        entry = self.registry.by_id(record.deployment_id)
        known = self.inspector.hooks_of(entry.deployment) if entry is not None else None
        return known is None or hook in known

    def _note_registered(self) -> None:
        self.poller.kick()
        self.refresher.wake()
