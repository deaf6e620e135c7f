"""Builds every part of the daemon, the only module that does, and passes each part what it needs by keyword."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from functools import partial

from runnerd import __version__
from runnerd.config import HostDefaults, load
from runnerd.config.in_force import ConfigInForce
from runnerd.config.script_entries import enter_scripts
from runnerd.control.backend.build import DaemonParts, build_host
from runnerd.control.backend.documents import offered_document, run_document, service_document
from runnerd.control.server import ControlServer
from runnerd.core.pace import Pace
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.settings import EMBEDDED, Config
from runnerd.core.wakes import Wakes
from runnerd.daemon.embedded import EmbeddedServer, embedded_url
from runnerd.daemon.options import Options
from runnerd.daemon.reloading import Reloader
from runnerd.daemon.served_scripts import ServedScripts
from runnerd.daemon.settling import Settling
from runnerd.daemon.summary import Summary
from runnerd.deployments.build import DeploymentNeeds, build_deployments
from runnerd.deployments.scheduled import list_upcoming
from runnerd.doctor.doctor import Doctor
from runnerd.doctor.subject import Subject
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.api_access import access_reader, credentials_reader
from runnerd.launch.client_defaults import ClientDefaults
from runnerd.launch.credentials_in_force import CredentialsInForce
from runnerd.launch.environment import Environments
from runnerd.launch.guests import GuestLauncher
from runnerd.launch.prepared import Launchers
from runnerd.log.api_health_log import ApiHealthLog
from runnerd.output.build import build_output
from runnerd.polling.build import build_polling
from runnerd.pools.build import build_pools
from runnerd.pools.source_notes import SourceNotes
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.event_socket import subscribe
from runnerd.prefect_api.prefect_socket import SocketAccess
from runnerd.prefect_api.worker_socket import open_channel
from runnerd.processes.link import SpawnerLink
from runnerd.processes.locating import SpawnerLocation
from runnerd.processes.upgrading import WantedSpawner
from runnerd.runs.build import build_supervision
from runnerd.spawner.build_id import read_build_id
from runnerd.system.ambient import Ambient, call_later
from runnerd.system.directories import own_folders, runs_dir, work_dir
from runnerd.system.paths import Paths
from runnerd.system.systemd import Systemd, listen_fds
from runnerd.warm.build import build_warm


class Daemon:
    """The parts of one runnerd, built but not running; daemon/service.py runs them."""

    def __init__(
        self,
        *,
        paths: Paths,
        options: Options,
        defaults: HostDefaults,
        config: Config,
        journal: Journal,
        environ: Mapping[str, str],
        ambient: Ambient,
    ) -> None:
        self.paths, self.journal, self.ambient, self._environ = paths, journal, ambient, environ
        # Events, the record feed and problems first: through them parts reach parts that are built later.
        self.config = ConfigInForce(config)
        self.wakes, self.feed, self.problems, self._pace = Wakes(), RecordFeed(), Problems(), Pace()
        self.problems.register(self.config.problems)
        self.tasks = asyncio.TaskGroup()
        self._calls = BoundedCalls(own=own_folders(paths))
        for text in (lambda: journal.problem, lambda: journal.notice, self._calls.problem):
            self.problems.register_text(text)
        self.systemd = Systemd(environ=environ, pid=os.getpid())
        self.wanted_spawner = WantedSpawner(version=__version__, build=read_build_id(), users=defaults.users)
        self._build_edges()
        self._build_deployments()
        self._build_runs()
        self.output = build_output(
            api=self.api,
            journald=options.journald,
            journal=journal,
            paths=paths,
            records=self.supervisor.records,
            calls=self._calls,
            config=self.config,
            feed=self.feed,
            ambient=ambient,
        )
        self._build_polling()
        self._build_surroundings(defaults)
        self._build_control()

    def _build_edges(self) -> None:
        """Build the clients of the API and of the spawner."""
        api = self.config.settings().api
        url = embedded_url(self.paths.state) if api.url == EMBEDDED else api.url
        self._health_log = ApiHealthLog(url=url, log=self.ambient.log, later=call_later)
        read = credentials_reader(self.config, environ=self._environ, directory=self.paths.credentials)
        self.credentials = CredentialsInForce(read=read, config=self.config, calls=self._calls, problems=self.problems)
        self.api = PrefectApi(
            url=url,
            credentials=self.credentials.known,
            read_again=self.credentials.read,
            headers=api.headers,
            timeout_s=api.request_timeout_s,
            now=self.ambient.now,
            on_health=self._note_health,
            on_left_out=self._health_log.note_left_out,
        )
        sockets = partial(SocketAccess, url=url, credentials=self.credentials.known, headers=api.headers)
        self._sockets = sockets(clock=self.ambient.clock, note_sent=self.api.transport.traffic.note_sent)
        self._access = access_reader(url, self.config, self.credentials.read)
        host = SpawnerLocation(self.paths, users=self._environ.get("RUNNERD_FLOW_USERS"))
        self.link = SpawnerLink(
            make_client=host.make_client, start_spawner=host.start_spawner, problems=self.problems, log=self.ambient.log
        )
        self.problems.register_text(lambda: self.wanted_spawner.difference_of_users(self.link.hello))
        embedded = partial(EmbeddedServer, link=self.link, url=url, paths=self.paths, problems=self.problems)
        self.embedded = embedded(log=self.ambient.log) if api.url == EMBEDDED else None

    def _build_deployments(self) -> None:
        self._environments = Environments(environ=self._environ, calls=self._calls, client=ClientDefaults(api=self.api))
        needs = DeploymentNeeds(
            api=self.api,
            config=self.config,
            link=self.link,
            journal=self.journal,
            environments=self._environments,
            access=self._access,
            calls=self._calls,
            paths=self.paths,
            worker_name=self.config.host_name,
            runs=lambda: self.supervisor.records(),
            feed=self.feed,
            wakes=self.wakes,
            problems=self.problems,
            ambient=self.ambient,
        )
        parts = build_deployments(needs)
        self.sources, self.relocator, self._own = parts.sources, parts.relocator, parts.launcher
        self.registry, self.inspector, self.registrar = parts.registry, parts.inspector, parts.registrar
        self.automations, self.pauses = parts.automations, parts.pauses
        self.refresher, self.rechecker, self.scripts = parts.refresher, parts.rechecker, parts.scripts
        self.pools = build_pools(
            api=self.api,
            open_channel=partial(open_channel, self._sockets, now=self.ambient.now),
            link=self.link,
            environments=self._environments,
            access=self._access,
            paths=self.paths,
            config=self.config,
            feed=self.feed,
            pace=self._pace,
            wakes=self.wakes,
            problems=self.problems,
            calls=self._calls,
            ambient=self.ambient,
        )
        SourceNotes(api=self.api, feed=self.feed, outbox=self.pools.outbox, now=self.ambient.now)

    def _build_runs(self) -> None:
        self.warm = build_warm(
            link=self.link,
            config=self.config,
            calls=self._calls,
            work_dir=work_dir(self.paths),
            upcoming=lambda: list_upcoming(self.registry, self._own),
            claims=lambda: self.supervisor.draining is None,
            tasks=self.tasks,
            feed=self.feed,
            problems=self.problems,
            ambient=self.ambient,
        )
        guests = GuestLauncher(
            config=self.config, access=self._access, output_dir=runs_dir(self.paths), environments=self._environments
        )
        choose = self.warm.table.choose
        self.launchers = Launchers(own=self._own, pools=self.pools.launcher, guests=guests, choose=choose)
        parts = build_supervision(
            api=self.api,
            link=self.link,
            journal=self.journal,
            launcher=self.launchers,
            environments=self._environments,
            ended=lambda record: run_document(record, now=self.ambient.now()),
            late=lambda run: offered_document(run, self.registry.by_id(run.deployment_id)),
            hooked=self.inspector.may_have_hook,
            registry=self.registry,
            pool_caps=self.pools.table.caps,
            paths=self.paths,
            calls=self._calls,
            tasks=self.tasks,
            config=self.config,
            feed=self.feed,
            wakes=self.wakes,
            problems=self.problems,
            ambient=self.ambient,
        )
        self.supervisor, self.receipt_checks = parts.supervisor, parts.receipt_checks
        self.drain, self.room, self.notices = parts.drain, parts.room, parts.notices

    def _build_polling(self) -> None:
        parts = build_polling(
            feed=self.feed,
            api=self.api,
            supervisor=self.supervisor,
            registry=self.registry,
            journal=self.journal,
            pools=self.pools.offers,
            config=self.config,
            wakes=self.wakes,
            ambient=self.ambient,
            problems=self.problems,
            pace=self._pace,
            subscribe=partial(subscribe, self._sockets, now=self.ambient.now),
            changes=self.pools.changes,
            on_late=self.notices.late.note,
        )
        self.poller, self.cancellations, self.events = parts.poller, parts.cancellations, parts.events
        self.abandoned, self.blocked = parts.abandoned, parts.blocked

    def _build_surroundings(self, defaults: HostDefaults) -> None:
        enter = partial(enter_scripts, directory=self.paths.config, defaults=defaults, calls=self._calls)
        self.served = ServedScripts(reading=self.scripts, enter=enter)
        self.reloader = Reloader(
            config=self.config,
            scripts=self.served,
            read=lambda good: load(self.paths.config, defaults=defaults, last_good=good, calls=self._calls),
            journal=self.journal,
            registrar=self.registrar,
            sources=self.sources,
            pools=self.pools.table,
            served=self.pools.keeper,
            credentials=self.credentials,
            api=self.api,
            settling=Settling(api=self.api, registrar=self.registrar, pools=self.pools.keeper, scripts=self.served),
            wakes=self.wakes,
            log=self.ambient.log,
        )
        self.summary = Summary(
            api=self.api,
            config=self.config,
            problems=self.problems,
            supervisor=self.supervisor,
            feed=self.feed,
            wakes=self.wakes,
            systemd=self.systemd,
        )

    def _doctor(self) -> Doctor:
        subject = Subject(
            api=self.api,
            config=self.config,
            embedded=lambda: self.embedded.problem if self.embedded else None,
            registry=self.registry,
            held_drops=self.registrar.held_drops,
            warm=self.warm.table.problems,
            notices=self.notices.queue.problems,
            pools=self.pools.keeper,
            abandoned=self.abandoned,
            deadlocked=self.blocked.deadlocked,
            environments=self._environments,
            journal=self.journal,
            link=self.link,
            wanted_spawner=self.wanted_spawner,
            pulse=self.ambient.pulse,
            systemd=self.systemd,
            paths=self.paths,
            environ=self._environ,
        )
        return Doctor(subject=subject, log=self.ambient.log)

    def _build_control(self) -> None:
        parts = DaemonParts(
            api=self.api,
            config=self.config,
            problems=self.problems,
            supervisor=self.supervisor,
            drain=self.drain,
            poller=self.poller,
            blocked=self.blocked,
            registry=self.registry,
            sources=self.sources,
            launchers=self.launchers,
            pools=self.pools.keeper,
            pool_table=self.pools.table,
            served=self.pools.table.names,
            events=self.events,
            warm=self.warm.table,
            notices=self.notices.queue,
            journal=self.journal,
            link=self.link,
            feed=self.feed,
            wakes=self.wakes,
            calls=self._calls,
            ambient=self.ambient,
            examine=self._doctor().examine,
            service=lambda: service_document(self.paths, self._environ, self.wanted_spawner.users_of(self.link.hello)),
            reload=self.reloader.reload,
        )
        self.control = ControlServer(
            host=build_host(parts),
            control=lambda: self.config.settings().control,
            problems=self.problems,
            log=self.ambient.log,
            calls=self._calls,
            stop=self.wakes.shutdown.set,
            socket_path=self.paths.control_socket,
            sockets=[socket.socket(fileno=fd) for fd in listen_fds(self._environ, os.getpid())],
            group="runnerd" if os.geteuid() == 0 else None,
        )

    def _note_health(self, health: ApiHealth) -> None:
        self._health_log.note_health(health)
        self.wakes.status.set()
        if health.condition is ApiCondition.OK:
            self.wakes.poll_now()
