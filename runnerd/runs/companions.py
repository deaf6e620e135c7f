"""Does for a run what goes on beside its phases: renews its lease, and reports a command as Running.

Invariants: no step of the run waits for these requests, except its report, which no Running may follow: the server
would take that over a verdict. Running has a transition id made of the claim's, so that a repeat makes no second state.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid

from runnerd.core.errors import ApiError, ApiRejected
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import FlowRun, StateType, Verdict
from runnerd.log.log import about
from runnerd.runs.lease import renew_lease
from runnerd.runs.record_store import RunContext, RunRecordStore

_STARTED = (Phase.RUNNING, Phase.STOPPING, Phase.KILLING)


def running_id(record: RunRecord) -> str:
    """Return the transition id of the state Running of this attempt, which no other claim and no other host makes."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{record.id} {record.transition_id} {record.attempt} running"))


def awaits_running(record: RunRecord, found: FlowRun | None) -> bool:
    """Whether the API still has the state of our claim of a command that has started."""
    if record.command is None or record.started_at is None or found is None:
        return False
    return found.state.type is StateType.PENDING and found.state.transition_id == record.transition_id


class Companions:
    """The tasks beside one run. `resumed`: an earlier daemon may have made the same requests."""

    def __init__(self, *, store: RunRecordStore, context: RunContext, resumed: bool) -> None:
        self._store = store
        self._context = context
        self._resumed = resumed
        self._over = asyncio.Event()  # the process has ended: no request is begun any more
        self._lease: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None

    async def attend(self) -> None:
        """Begin what this phase of the run needs; before the run's report, wait for the end of what is under way."""
        record = self._store.record
        if self._lease is None and record.leased and record.phase in (Phase.STARTING, Phase.RUNNING):
            api, log = self._context.api, self._context.ambient.log
            self._lease = asyncio.create_task(renew_lease(record, api=api, log=log))
        if record.command is None:
            return
        if self._announcing is None and record.phase in _STARTED:
            self._announcing = asyncio.create_task(self._announce_running())
        if record.phase is Phase.REPORTING and self._announcing is not None:
            self._over.set()
            await self._announcing

    def cancel(self) -> None:
        """End the tasks."""
        for task in (self._lease, self._announcing):
            if task is not None:
                task.cancel()

    async def _announce_running(self) -> None:
        """Propose Running until the API has it, has another state, or the process has ended."""
        record, backoff, sure = self._store.record, self._context.ambient.backoff(), not self._resumed
        while not self._over.is_set():
            try:
                if not sure and not awaits_running(record, await self._context.api.read_run(record.id)):
                    return
                answer = await self._context.api.propose(
                    record.id, Verdict(type=StateType.RUNNING), transition_id=running_id(record)
                )
                if answer.wait_s is None:
                    return
                delay_s = answer.wait_s
            except ApiRejected as error:
                fields = {"run": record.id, "why": str(error), "about": about(record)}
                self._context.ambient.log.warning("the API rejects that a command is Running", **fields)
                return
            except ApiError as error:
                delay_s = backoff.next_s(error)
            sure = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._over.wait()
