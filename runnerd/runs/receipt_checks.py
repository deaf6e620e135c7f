"""Reads the runs that a receipt has ended while the API was away (ADR 29), once it answers, and settles what differs.

Invariants: each such run is read once, by this daemon or a later one; a run that has been claimed since, here or
elsewhere, is left alone; a verdict is reported by the run's own task, which reads the state again before.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected, JournalError
from runnerd.core.exit_words import message_of
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import ApiState, StateType
from runnerd.core.verdicts import settle
from runnerd.log.log import about
from runnerd.runs.record_store import RunContext
from runnerd.runs.supervisor import Supervisor
from runnerd.system.containment import Containment


class ReceiptChecks:
    """Holds the runs that are to be read."""

    def __init__(self, *, context: RunContext, supervisor: Supervisor) -> None:
        self._context = context
        self._api = context.api
        self._supervisor = supervisor
        self._journal = context.journal
        self._config = context.config
        self._ambient = context.ambient
        self._contained = Containment(log=context.ambient.log, loop="receipts", passing=(ApiError, JournalError))
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        context.feed.subscribe(self._note)

    def _note(self, record: RunRecord) -> None:
        if record.phase is Phase.DONE and record.unread:
            self._waiting.put_nowait(record.id)

    async def run(self) -> None:
        """Read the runs of the last daemon, then those of this one, for ever."""
        await self._list_unread()
        backoff = self._ambient.backoff()
        while True:
            run_id = await self._waiting.get()
            try:
                with self._contained.item(f"run {run_id}"):
                    await self._check(run_id)
                backoff.reset()
            except (ApiAway, ApiDenied) as error:
                self._waiting.put_nowait(run_id)  # last: one run that cannot be read holds up no other
                await asyncio.sleep(backoff.next_s(error))
            except ApiRejected as error:
                self._ambient.log.warning("cannot read a run that has ended", run=run_id, why=str(error))
            except JournalError as error:  # the next daemon reads the run again
                self._ambient.log.error("cannot record how a run has ended", run=run_id, why=str(error))

    async def _list_unread(self) -> None:
        """List the runs of the last daemon, as soon as the journal can be read."""
        backoff, failed = self._ambient.backoff(), False
        while True:
            try:
                unread = self._journal.unread()
                break
            except JournalError as error:
                if not failed:
                    self._ambient.log.error("cannot list the runs that have ended unread", why=str(error))
                failed = True
                await asyncio.sleep(backoff.next_s())
        noted = [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]  # meanwhile: `unread` has them too
        for run_id in dict.fromkeys([*unread, *noted]):
            self._waiting.put_nowait(run_id)

    async def _check(self, run_id: str) -> None:
        """Read the run, and settle what differs. Raises ApiError, JournalError."""
        found = await self._api.read_run(run_id)
        state = found.state if found is not None else None
        ours = state is None or await self._is_of_our_claim(run_id, state)
        record = self._journal.run(run_id)  # after the requests: the run may have been claimed again meanwhile
        if record is None or not record.unread or self._supervisor.run(run_id) is not None:
            return
        if state is None or not ours:  # the API has no such end, and nobody is notified of one
            return self._journal.save(replace(record, unread=False), "read after the outage")
        if state.type is record.api_state:
            return self._save_end(replace(record, unread=False, api_state_message=message_of(state)))
        fields = {"run": run_id, "process": record.api_state_name, "api": state.name, "about": about(record)}
        self._ambient.log.warning("a run has not ended as its process says", **fields)
        known = replace(
            record,
            unread=False,
            receipt=None,
            api_state=state.type,
            api_state_name=state.name,
            api_state_message=message_of(state),
        )
        then, now = self._config.settings().stop.then, self._ambient.now()
        if settle(known, state, then=then, now=now).verdict is None:
            return self._save_end(known)
        again = replace(known, phase=Phase.REPORTING, api_state=None, api_state_name=None)
        self._journal.save(again, "read after the outage; to be reported")
        return self._supervisor.adopt([again])

    def _save_end(self, record: RunRecord) -> None:
        """Save how a run has ended as the API has it, with the notices that waited for that. Raises JournalError."""
        notices = self._context.notice_maker.of_end(record)
        self._journal.save(record, "read after the outage", notices=notices)
        self._context.notice_queue.add(notices)

    async def _is_of_our_claim(self, run_id: str, state: ApiState) -> bool:
        """Return whether no other claim was made since ours: a verdict would end a run that another host has."""
        record = self._journal.run(run_id)
        if record is None or state.type is record.api_state:
            return True
        claims = [one for one in await self._api.history(run_id) if one.type is StateType.PENDING]
        return bool(claims) and claims[-1].transition_id == record.transition_id
