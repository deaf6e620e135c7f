"""Builds the status document and the configuration document."""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd import __version__
from runnerd.config import describe_config
from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.deployments import DeploymentsBackend
from runnerd.control.backend.documents import api_document, limits_document, stream_document
from runnerd.control.backend.runs import RunsBackend
from runnerd.core.exit_words import time_text
from runnerd.core.place import Json, problem_document
from runnerd.core.problems import Problems
from runnerd.notices.queue import NoticeQueue
from runnerd.polling.event_stream import EventStream
from runnerd.pools.keeper import PoolKeeper
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.drain import Drain
from runnerd.system.ambient import Ambient
from runnerd.warm.documents import warm_documents
from runnerd.warm.table import WarmTable


class Status:
    """The state of the daemon. Created when the daemon starts; `started_at` is the time of creation."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        config: ConfigInForce,
        problems: Problems,
        drain: Drain,
        runs: RunsBackend,
        deployments: DeploymentsBackend,
        pools: PoolKeeper,
        events: EventStream,
        warm: WarmTable,
        notices: NoticeQueue,
        service: Callable[[], Json],
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._config = config
        self._problems = problems
        self._drain = drain
        self._runs = runs
        self._deployments = deployments
        self._pools = pools
        self._events = events
        self._warm = warm
        self._notices = notices
        self._service = service
        self._started_at = ambient.now()

    def configuration(self) -> Json:
        """Return the document of GET /v1/config: the configuration in force, without secrets."""
        return {**describe_config(self._config.current), "service": self._service()}

    def document(self) -> Json:
        """Return the document of GET /v1/status."""
        settings = self._config.settings()
        records = self._runs.records()
        waiting, waiting_total = self._runs.waiting_here()
        limits = limits_document(records, runs=settings.limits.runs, tags=dict(settings.limits.tags))
        return {
            "name": settings.name,
            "version": __version__,
            "pid": os.getpid(),
            "started_at": time_text(self._started_at),
            "api": {
                **api_document(self._api.url, self._api.health),
                "requests_per_minute": self._api.transport.traffic.per_minute,
                "stream": stream_document(self._events),
            },
            "draining": self._drain.draining is not None,
            "drain": self._drain_document(),
            "limits": limits,
            "runs": self._runs.listing(history=False),
            "waiting": waiting,
            "waiting_total": waiting_total,
            "usage_at": time_text(self._runs.measured_at),
            "deployments": self._deployments.listing(),
            "pools": self._pools.documents(records),
            "warm": warm_documents(self._warm),
            "notices": self._notices.documents(),
            "problems": [problem_document(problem) for problem in self._problems.all()],
        }

    def _drain_document(self) -> Json:
        draining = self._drain.draining
        if draining is None:
            return None
        return {
            "since": time_text(draining.since),
            "reason": draining.reason,
            "until": time_text(draining.until),
            "stopping": draining.stopping,
        }
