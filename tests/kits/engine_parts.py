"""Parts of an Engine that a test has its hand in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from runnerd.core.machine import RunRecord
from runnerd.core.prefect import ApiState, FlowRun, Verdict
from runnerd.core.process import LaunchSpec
from runnerd.deployments.registry import Registry
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.prepared import Prepared
from runnerd.launch.spec import hooks_spec
from runnerd.polling.poller import Poller
from runnerd.prefect_api.answers import Answer, Claim
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Offered
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import a_deployment


async def poll_and_look_up(poller: Poller) -> Offered:
    """Poll once, and look up what a daemon looks up after a poll, in the background."""
    offered = await poller.poll_once()
    await poller.look_ups.look_up()
    return offered


@dataclass
class SpecLauncher:
    """Launch specs with the deployment's own settings; `failure` or `hangs` is said instead where it is set."""

    registry: Registry
    failure: str | None = None
    hangs: Unanswered | None = None
    hanging: str | None = None  # only runs of this deployment
    asked: list[tuple[str, int]] = field(default_factory=list)

    def spec(self, record: RunRecord) -> LaunchSpec | str:
        self.asked.append((record.id, record.attempt))
        entry = self.registry.by_id(record.deployment_id)
        if self.failure is not None or (entry is None and record.pool is None):
            return self.failure or "its deployment is not configured on this host any more"
        run = entry.deployment.run if entry is not None else a_deployment().run
        return LaunchSpec(
            key=record.id,
            attempt=record.attempt,
            argv=("true",),
            environment={},
            working_directory="/",
            output=f"/var/log/{record.id}.{record.attempt}.log",
            user=run.user,
            runtime_max_s=run.runtime_max_s,
            memory_max_bytes=run.memory_max_bytes,
            stop_timeout_s=run.stop_timeout_s,
        )

    async def prepare(self, record: RunRecord) -> Prepared:
        spec = self.spec(record)
        if self.hangs is not None and self.hanging in (None, record.deployment):
            return Prepared(start=self.hangs)
        entry = self.registry.by_id(record.deployment_id)
        run = entry.deployment.run if entry is not None else a_deployment().run
        return Prepared(start=spec, user=None if isinstance(spec, str) else spec.user).with_commands(run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        flow = self.spec(record)
        if self.hangs is not None:
            return self.hangs
        return flow if isinstance(flow, str) else hooks_spec(flow, record, program="pass", timeout_s=60.0)


class Interfering:
    """An api that is overtaken: after each read of a run that was claimed one of `moves` is made, by somebody else."""

    def __init__(self, api: PrefectApi, prefect: FakePrefect, moves: list[tuple[str, str | None]]) -> None:
        self._api = api
        self._prefect = prefect
        self._moves = moves

    async def claim(self, run_id: str, *, transition_id: str) -> Claim:
        return await self._api.claim(run_id, transition_id=transition_id)

    async def read_run(self, run_id: str) -> FlowRun | None:
        found = await self._api.read_run(run_id)
        if self._moves and self._claimed(run_id):
            self._prefect.set_state(run_id, *self._moves.pop(0))
        return found

    def _claimed(self, run_id: str) -> bool:
        return self._prefect.state_of(run_id) != "SCHEDULED"

    async def history(self, run_id: str) -> list[ApiState]:
        return await self._api.history(run_id)

    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer:
        return await self._api.propose(run_id, verdict, transition_id=transition_id)

    async def renew_lease(self, lease_id: str) -> bool:
        return await self._api.renew_lease(lease_id)

    async def release_retry(self, run: FlowRun) -> None:
        await self._api.release_retry(run)


async def start_cold(prepared: Prepared) -> Prepared:
    """What a host without warm interpreters makes of the start of a run."""
    return prepared


class NoSpares:
    """A spawner without warm interpreters."""

    def knows(self, _key: str) -> bool:
        return False

    async def clear(self, *, why: str) -> None:
        raise AssertionError(f"there is nothing to end: {why}")


class NotedEvent(asyncio.Event):
    """An event that calls `note` each time it is set."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self._note = note

    def set(self) -> None:
        super().set()
        self._note()
