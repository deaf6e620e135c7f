"""The composition root: every part of the daemon is built here and given to the others by keyword."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from runnerd.access import access_of, credentials_of
from runnerd.asking import Ask
from runnerd.backoff import Backoff
from runnerd.config import HostDefaults
from runnerd.control.server import ControlServer
from runnerd.directories import runs_dir, work_dir
from runnerd.doctor import Doctor, Patient
from runnerd.drain import Drain
from runnerd.embedded import EmbeddedServer, embedded_url
from runnerd.errors import SpawnerError
from runnerd.forwarding import Forwarder
from runnerd.host import DaemonHost, Feed
from runnerd.inspector import Inspector
from runnerd.journal import Journal
from runnerd.launcher import FlowLauncher
from runnerd.link import SpawnerLink
from runnerd.logs import ApiNews, Log
from runnerd.machine import Hook, Phase, RunRecord
from runnerd.model import EMBEDDED, ApiCondition, ApiHealth, Config, Problem
from runnerd.paths import Paths
from runnerd.poller import Poller
from runnerd.prefect_api.client import PrefectApi
from runnerd.pulse import Pulse
from runnerd.refresher import Refresher
from runnerd.registrar import Registrar
from runnerd.registry import Registry
from runnerd.reloading import ConfigInForce
from runnerd.service import Options, Parts, Service
from runnerd.spawner.client import SpawnerClient, start_spawner
from runnerd.spawner.protocol import Record
from runnerd.supervisor import Supervisor
from runnerd.systemd import Systemd, listen_fds
from runnerd.tools import Tools
from runnerd.workpools.desk import PoolDesk


def _now() -> datetime:
    return datetime.now(UTC)


def _backoff() -> Backoff:
    return Backoff(first_s=0.5, cap_s=30.0)


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
        self._news = ApiNews(url=self._url, log=log, later=self._later)
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
            now=self._now,
            backoff=self._backoff,
            then=lambda: settings().stop.then,
            hooked=self._hooked,
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
        journald, records = self._options.journald, self.supervisor.records
        self._forwarder = Forwarder(
            journald=journald, paths=self._paths, records=records, settings=settings, log=self._log
        )
        self.poller = Poller(
            api=self.api,
            supervisor=self.supervisor,
            registry=self.registry,
            settings=settings,
            log=self._log,
            pulse=self._pulse,
            now=self._now,
            backoff=self._backoff,
            new_id=lambda: str(uuid.uuid4()),
        )
        self._build_registration(launcher)
        self.drain = Drain(supervisor=self.supervisor, now=self._now)
        self._build_control(self._doctor(launcher))

    def _build_registration(self, launcher: FlowLauncher) -> None:
        self.inspector = Inspector(
            link=self.link, journal=self._journal, launcher=launcher, work_dir=work_dir(self._paths), log=self._log
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
        self.config.use(self.registrar)

    def _doctor(self, launcher: FlowLauncher) -> Doctor:
        patient = Patient(
            url=self._url,
            api=self.api,
            config=lambda: self.config.current,
            problems=self.config.problems,
            embedded=lambda: self._embedded.problem if self._embedded else None,
            registry=self.registry,
            launcher=launcher,
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
        named = lambda: {pool.name for pool in self.config.current.pools}  # noqa: E731
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
            doctor=doctor.examine,
            ask=ask,
            pools=PoolDesk(api=self.api, ask=ask, now=self._now, served=named),
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
        return EmbeddedServer(
            link=self.link,
            url=self._url,
            state_dir=self._paths.state,
            log_dir=self._paths.log,
            log=self._log,
            changed=lambda: None,
        )

    async def run(self) -> int:
        """Serve until somebody asks to stop. Raises ControlError or SpawnerError when it cannot begin."""
        parts = Parts(
            api=self.api,
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
            pulse=self._pulse,
            refresher=self.refresher,
            registrar=self.registrar,
            supervisor=self.supervisor,
            systemd=self._systemd,
            status_text=self._status_text,
            ready={"config": self._paths.config, "api": self._url, "socket": self._paths.control_socket},
        )
        return await Service(parts=parts, options=self._options).run()

    # --- what the parts tell ------------------------------------------------------------------------------------------

    def _note_health(self, health: ApiHealth) -> None:
        self._news.note(health)
        self._changed.set()
        if health.condition is ApiCondition.OK:
            self.poller.kick()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)

    def _note_run(self, record: RunRecord) -> None:
        self.supervisor.note_change()
        self.feed.tell(record)
        self._forwarder.note(record)
        self._changed.set()
        if record.phase is Phase.STARTING:
            self.refresher.wake()  # its deployment's next start is another one now

    def _hooked(self, record: RunRecord, hook: Hook) -> bool:
        entry = self.registry.by_id(record.deployment_id)
        known = self.inspector.hooks_of(entry.deployment) if entry is not None else None
        return known is None or hook in known

    def _note_registered(self) -> None:
        self.poller.kick()
        self.refresher.wake()

    def _problems(self) -> list[Problem]:
        """Everything an administrator has to mend."""
        found = [*self.config.problems(), *self.registrar.problems()]
        words = [
            self.link.problem,
            self._journal.problem,
            self._journal.notice,
            self.poller.unsupported,
            self._embedded.problem if self._embedded else None,
        ]
        return [*found, *(Problem(message=text) for text in words if text)]

    def _status_text(self) -> str:
        health, runs = self.api.health, len(self.supervisor.records())
        api = "API ok" if health.condition is ApiCondition.OK else f"API {health.condition}: {health.detail}"
        draining = "; draining" if self.drain.draining else ""
        problems = len(self._problems())
        these = "1 problem" if problems == 1 else f"{problems} problems"
        return f"{runs} running of {self.config.settings().limits.runs}, {api}{draining}" + (
            f"; {these}, see runnerctl status" if problems else ""
        )

    # --- the spawner --------------------------------------------------------------------------------------------------

    def _spawner_client(self, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient:
        return SpawnerClient(socket_path=self._paths.spawner_socket, on_record=on_record, on_lost=on_lost)

    async def _start_spawner(self) -> None:
        if self._paths.managed_spawner is not None:
            raise SpawnerError(
                f"the spawner does not answer at {self._paths.managed_spawner}, which somebody else starts;"
                " see systemctl status runnerd-spawner"
            )
        await start_spawner(
            socket_path=self._paths.spawner_socket,
            runtime_dir=self._paths.spawner_dir,
            owner=os.geteuid(),
            log_file=os.path.join(self._paths.log, "spawner.log"),
        )
