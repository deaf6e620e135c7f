"""The host in a few words: everything an administrator has to mend, and the one line of `systemctl status`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from runnerd.core.place import Problem
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.daemon.reloading import ConfigInForce
from runnerd.deployments.registrar import Registrar
from runnerd.journal.journal import Journal
from runnerd.polling.poller import Poller
from runnerd.pools.keeper import PoolKeeper
from runnerd.processes.link import SpawnerLink
from runnerd.runs.drain import Drain
from runnerd.runs.supervisor import Supervisor
from runnerd.system.systemd import Systemd


class Summary:
    """`embedded` tells what is wrong with the embedded server, `public` with http.listen; None where nothing is."""

    def __init__(
        self,
        *,
        config: ConfigInForce,
        registrar: Registrar,
        pools: PoolKeeper,
        poller: Poller,
        supervisor: Supervisor,
        drain: Drain,
        link: SpawnerLink,
        journal: Journal,
        health: Callable[[], ApiHealth],
        embedded: Callable[[], str | None],
        public: Callable[[], str | None],
    ) -> None:
        self._config = config
        self._registrar = registrar
        self._pools = pools
        self._poller = poller
        self._supervisor = supervisor
        self._drain = drain
        self._link = link
        self._journal = journal
        self._health = health
        self._embedded = embedded
        self._public = public

    def problems(self) -> list[Problem]:
        """Everything an administrator has to mend."""
        pools = [Problem(message=why, place=served.settings.place) for served, why in self._pools.problems()]
        words: Sequence[str | None] = [
            self._link.problem,
            self._journal.problem,
            self._journal.notice,
            self._poller.unsupported,
            self._embedded(),
            self._public(),
        ]
        others = [Problem(message=text) for text in words if text]
        return [*self._config.problems(), *self._registrar.problems(), *pools, *others]

    def line(self) -> str:
        """`3 running of 10, API ok`; ASCII is up to whoever sends it."""
        health, runs = self._health(), len(self._supervisor.records())
        api = "API ok" if health.condition is ApiCondition.OK else f"API {health.condition}: {health.detail}"
        draining = "; draining" if self._drain.draining else ""
        problems = len(self.problems())
        these = "1 problem" if problems == 1 else f"{problems} problems"
        return f"{runs} running of {self._config.settings().limits.runs}, {api}{draining}" + (
            f"; {these}, see runnerctl status" if problems else ""
        )


_STATUS_S = 5.0


async def keep_status(*, systemd: Systemd, text: Callable[[], str], changed: asyncio.Event) -> None:
    """Keep the line that `systemctl status` shows true: at once when `changed` is set, and now and then."""
    while systemd.present:
        changed.clear()
        systemd.status(text())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                await changed.wait()
