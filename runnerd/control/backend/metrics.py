"""Builds the daemon's metrics in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from runnerd.config.in_force import ConfigInForce
from runnerd.core.prefect import ApiCondition
from runnerd.deployments.registry import EntryState, Registry
from runnerd.polling.poller import Poller
from runnerd.pools.keeper import PoolKeeper
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor


class Metrics:
    """The metrics, read from the daemon's parts at each request."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        config: ConfigInForce,
        poller: Poller,
        pools: PoolKeeper,
        registry: Registry,
        supervisor: Supervisor,
    ) -> None:
        self._api = api
        self._config = config
        self._poller = poller
        self._pools = pools
        self._registry = registry
        self._supervisor = supervisor

    async def text(self) -> str:
        """Return all metrics, a sample per line."""
        records = self._supervisor.records()
        phases = {phase: sum(record.phase == phase for record in records) for phase in {r.phase for r in records}}
        states = {s: sum(e.state is s for e in self._registry.entries()) for s in EntryState}
        pools = self._pools.documents(records)
        pool_states = Counter(pool["state"] for pool in pools)
        polled, contained = self._poller.polled_at, self._supervisor.contained
        api = self._api.health.condition
        api_ok, api_maintenance = int(api is ApiCondition.OK), int(api is ApiCondition.MAINTENANCE)
        lines = [
            *gauge("runnerd_runs", "Live flow runs on this host.", "phase", phases),
            *gauge("runnerd_deployments", "Deployments of this host.", "state", states),
            *gauge("runnerd_pools", "Work pools that this host serves.", "state", pool_states),
            *gauge(
                "runnerd_pool_runs",
                "Live runs of a work pool.",
                "pool",
                {pool["name"]: pool["running"] for pool in pools},
            ),
            *gauge(
                "runnerd_runs_max",
                "The limit of live runs, limits.runs.",
                None,
                {"": self._config.settings().limits.runs},
            ),
            *gauge("runnerd_api_up", "1 while the state of the API is ok, else 0.", None, {"": api_ok}),
            *gauge("runnerd_api_maintenance", "1 during maintenance of the API, else 0.", None, {"": api_maintenance}),
            *gauge("runnerd_contained_errors", "Unexpected errors, each confined to one run.", None, {"": contained}),
        ]
        if polled is not None:
            help_text = "When the API was last polled with success, seconds since the epoch."
            lines += gauge("runnerd_last_poll_seconds", help_text, None, {"": polled.timestamp()})
        return "\n".join(lines) + "\n"


def gauge(name: str, help_text: str, label: str | None, values: Mapping[Any, float]) -> list[str]:
    """Return the lines of one gauge, a sample for each value of `label`."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
    for key, value in values.items():
        labels = f'{{{label}="{_escaped(str(key))}"}}' if label else ""
        lines.append(f"{name}{labels} {value}")
    return lines


def _escaped(value: str) -> str:
    """Escape the value of a label: the name of a pool may contain any character."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
