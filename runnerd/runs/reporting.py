"""What is told of a run whose process is dead, and what its flow wants done about it.

Invariants: process dead -> read -> decide -> tell -> hooks, in this order and each step on disk; what is told carries
an id that is on disk before, so that whoever finds it told knows who did.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from runnerd.core.machine import Event, RunRecord, Settlement, advance, hook_due, settle
from runnerd.core.prefect import ApiState, FlowRun, StateType, Verdict
from runnerd.log.log import about
from runnerd.runs.hooks import run_hooks
from runnerd.runs.record_store import RunContext, RunRecordStore

_PROPOSALS = 5  # times a verdict is read, decided and told again when the API refuses it


class Reporter:
    """The last part of one run's life."""

    def __init__(self, *, store: RunRecordStore, context: RunContext) -> None:
        self._store = store
        self._context = context

    @property
    def _record(self) -> RunRecord:
        return self._store.record

    async def report(self) -> None:
        """Read, decide, tell; from the start again when the API refuses, because the run has moved on."""
        if self._record.hook is not None:
            return await self._run_hooks()
        for _ in range(_PROPOSALS):
            found = await self._store.retry_always(lambda: self._context.api.read_run(self._record.id))
            state = found.state if found is not None else None
            self._learn(found)
            decision = settle(
                self._record, state, then=self._context.config.settings().stop.then, now=self._context.ambient.now()
            )
            if decision.settlement is Settlement.SPAWN_AGAIN:
                return await self._respawn()
            if decision.verdict is None:
                return await self._end(state)
            if decision.verdict.type is StateType.SCHEDULED and found is not None and found.retries_in_process:
                await self._release_retry(found)
            if await self._told(decision.verdict):
                return None
        said = {"run": self._record.id, "words": self._record.words}
        self._context.ambient.log.error("the API keeps refusing the verdict", **said, about=about(self._record))
        return self._store.step(Event.TOLD)

    def _learn(self, found: FlowRun | None) -> None:
        """A run that only the spawner knew of has its names from the API."""
        if found is not None and self._record.deployment_id is None:
            self._store.update(name=found.name, deployment_id=found.deployment_id)

    async def _release_retry(self, found: FlowRun) -> None:
        """Let any host retry it: Prefect would keep the run for its process, which is dead, and list it for no pool."""
        await self._store.retry_always(lambda: self._context.api.release_retry(found))

    async def _told(self, verdict: Verdict) -> bool:
        # One for all repeats: an answer may be lost, and telling twice is two states. On disk before it is told, so
        # that whoever finds it told knows who did.
        transition_id = str(uuid.uuid4())
        self._store.save(replace(self._record, verdict_id=transition_id), f"telling {verdict.name or verdict.type}")
        answer = await self._store.retry_always(
            lambda: self._context.api.propose(self._record.id, verdict, transition_id=transition_id)
        )
        if answer.gone:
            await self._end(None)
        elif answer.accepted:
            name = verdict.name or verdict.type.title()
            await self._end(ApiState(type=verdict.type, name=name, transition_id=transition_id))
        elif answer.wait_s is not None:
            await asyncio.sleep(answer.wait_s)
        return answer.gone or answer.accepted

    async def _end(self, state: ApiState | None) -> None:
        """The API knows; what is left are the flow's own hooks for it."""
        hook, of_child = hook_due(self._record, state) if state else (None, False)
        wanted = hook is not None and await self._context.hooked(self._record, hook)
        told = replace(  # after the await: the record may have changed meanwhile
            self._record, api_state=state.type if state else None, api_state_name=state.name if state else None
        )
        if wanted:
            return self._store.save(replace(told, hook=hook, hook_of_child=of_child), f"told; {hook} is due")
        return self._store.save(advance(told, Event.TOLD), "told")

    async def _run_hooks(self) -> None:
        """A run is done when its hooks are: until then it holds its slot, for they are processes of this host."""
        boot_id = self._context.link.boot_id
        how = await run_hooks(
            self._record,
            link=self._context.link,
            launcher=self._context.launcher,
            boot_id=boot_id,
            beginning=lambda: self._store.save(replace(self._record, hook_boot=boot_id), f"{self._record.hook} begun"),
        )
        said = {"run": self._record.id, "hook": self._record.hook, "how": how}
        self._context.ambient.log.info("hooks", **said, about=about(self._record))
        self._store.save(advance(self._record, Event.TOLD), f"{self._record.hook}: {how}")

    async def _respawn(self) -> None:
        ended = self._record.attempt
        again = replace(
            self._record, attempt=self._record.attempt + 1, respawned=True, identity=None, pgid=None,
            started_at=None, ended_at=None, exit=None, words=None,
        )  # fmt: skip
        self._store.save(advance(again, Event.RESPAWN), "no flow code ran; started again")
        await self._context.link.forget(self._record.id, ended)
