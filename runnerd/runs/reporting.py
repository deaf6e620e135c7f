"""Reports a run whose process is dead to the API, then runs the hooks that its flow has for the reported state.

Invariants: process dead -> read -> decide -> report -> hooks, in this order and each step on disk; while the API is
away, the receipt of the process may stand in for the reading (ADR 29); a report carries a transition id that is on disk
before, by which a later daemon recognises the state as ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace

from runnerd.core.errors import ApiAway, ApiError
from runnerd.core.exit_words import message_of, words_in_state
from runnerd.core.machine import Event, RunRecord, advance
from runnerd.core.prefect import ApiState, FlowRun, StateType, Verdict
from runnerd.core.verdicts import Decision, Settlement, hook_due, settle, state_by_receipt
from runnerd.log.log import about
from runnerd.runs.commands import forget_commands, run_after
from runnerd.runs.companions import awaits_running, running_id
from runnerd.runs.hooks import run_hooks
from runnerd.runs.record_store import RunContext, RunRecordStore

_READ_S = 30.0  # for reading the state, where a receipt can stand in for it
_REPORT_TRIES = 5  # times that the state is read, a verdict decided and reported while the API refuses the verdict


class Reporter:
    """Reports one run and runs its hooks."""

    def __init__(self, *, store: RunRecordStore, context: RunContext) -> None:
        self._store = store
        self._context = context
        self._refused = False  # the API has answered the last reading, with an error
        self._made_running = False

    @property
    def _record(self) -> RunRecord:
        return self._store.record

    async def report(self) -> None:
        """Read the state, decide and report the verdict; again when the API refuses because the state has changed."""
        if self._record.after_due or self._record.hook is not None:
            return await (self._run_after() if self._record.after_due else self._run_hooks())
        for _ in range(_REPORT_TRIES):
            found = await self._read_begun()
            if isinstance(found, ApiState):
                self._store.update(unread=True)  # runs/receipt_checks.py reads it once the API answers
                return await self._conclude(found)
            state = found.state if found is not None else None
            self._add_names(found)
            decision = self._settle(found)
            if decision.settlement is Settlement.SPAWN_AGAIN:
                return await self._respawn()
            if decision.verdict is None:
                return await self._conclude(state)
            if decision.verdict.type is StateType.SCHEDULED and found is not None and found.retries_in_process:
                await self._release_retry(found)
            if await self._report_verdict(decision.verdict):
                return None
        fields = {"run": self._record.id, "words": self._record.words}
        self._context.ambient.log.error("the API keeps refusing the verdict", **fields, about=about(self._record))
        return self._end(self._record, Event.TOLD)

    def _settle(self, found: FlowRun | None) -> Decision:
        then, now = self._context.config.settings().stop.then, self._context.ambient.now()
        if found is None:
            return settle(self._record, None, then=then, now=now)
        return settle(self._record, found.state, then=then, now=now, run_count=found.run_count)

    async def _read_begun(self) -> FlowRun | ApiState | None:
        """Read the run; make it Running first if it is a command, and the API was away while the command ran."""
        found = await self._read_run()
        if self._made_running or not isinstance(found, FlowRun) or not awaits_running(self._record, found):
            return found
        await self._make_running()
        return await self._read_run()

    async def _read_run(self) -> FlowRun | ApiState | None:
        """Read the run; None when the API has none.

        While the API is away, the receipt of the run's process ends the run instead, so that no drain and no client
        that watches the run waits for the end of an outage. While the API answers, it is believed and not the process.
        """
        reported = state_by_receipt(self._record)
        if reported is None:
            return await self._store.retry_always(self._read_once)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READ_S):
                return await self._store.retry_always(self._read_once)
        if self._refused:
            return await self._store.retry_always(self._read_once)
        fields = {"run": self._record.id, "state": reported.name, "about": about(self._record)}
        self._context.ambient.log.info("the API is away; the run has ended as its process says", **fields)
        return reported

    async def _read_once(self) -> FlowRun | None:
        try:
            return await self._context.api.read_run(self._record.id)
        except ApiError as error:
            self._refused = not isinstance(error, ApiAway) or error.may_be_own
            raise

    def _add_names(self, found: FlowRun | None) -> None:
        """Take the name and the deployment of a run that only the spawner had from the API."""
        if found is not None and self._record.deployment_id is None:
            command = self._context.command_of(found.deployment_id)
            self._store.update(name=found.name, deployment_id=found.deployment_id, command=command)

    async def _make_running(self) -> None:
        """Report that the command was Running, which counts the attempt."""
        self._made_running = True
        running, transition_id = Verdict(type=StateType.RUNNING), running_id(self._record)
        await self._store.retry_always(
            lambda: self._context.api.propose(self._record.id, running, transition_id=transition_id)
        )

    async def _release_retry(self, found: FlowRun) -> None:
        """Let any host retry the run: Prefect would reserve the retry for its dead process, and list it for no pool."""
        await self._store.retry_always(lambda: self._context.api.release_retry(found))

    async def _report_verdict(self, verdict: Verdict) -> bool:
        # One id for all repeats: without it, a repeat after a lost answer makes a second state. On disk before the
        # report, so that a later daemon recognises the state as ours.
        transition_id = str(uuid.uuid4())
        self._store.save(replace(self._record, verdict_id=transition_id), f"telling {verdict.name or verdict.type}")
        answer = await self._store.retry_always(
            lambda: self._context.api.propose(self._record.id, verdict, transition_id=transition_id)
        )
        if answer.gone:
            await self._conclude(None)
        elif answer.accepted:
            name = verdict.name or verdict.type.title()
            await self._conclude(ApiState(type=verdict.type, name=name, transition_id=transition_id))
        elif answer.wait_s is not None:
            await asyncio.sleep(answer.wait_s)
        return answer.gone or answer.accepted

    async def _conclude(self, state: ApiState | None) -> None:
        """Save the run's last state in the API; the run is done, or its hooks are due."""
        hook, of_child = hook_due(self._record, state) if state else (None, False)
        wanted = hook is not None and await self._context.hooked(self._record, hook)
        reported = replace(  # after the await: the record may have changed meanwhile
            self._record,
            api_state=state.type if state else None,
            api_state_name=state.name if state else None,
            api_state_message=message_of(state),
        )
        if state is not None:
            words = words_in_state(reported.words, intent=reported.intent, state=state.type)
            reported = replace(reported, words=words)
        if wanted:
            return self._store.save(replace(reported, hook=hook, hook_of_child=of_child), f"told; {hook} is due")
        return self._end(reported, "told")

    def _end(self, record: RunRecord, event: str) -> None:
        """Save the end; the run is done, or the commands after it are due."""
        if record.after:
            return self._store.save(replace(record, after_due=True), f"{event}; run.after is due")
        return self._store.save(advance(record, Event.TOLD), event)

    async def _run_hooks(self) -> None:
        """Run the hooks; the run holds its slot until they have ended, because they are processes of this host."""
        boot_id, hook = self._context.link.boot_id, self._record.hook
        end = await run_hooks(
            self._record,
            link=self._context.link,
            launcher=self._context.launcher,
            boot_id=boot_id,
            record_start=lambda: self._store.save(replace(self._record, hook_boot=boot_id), f"{hook} begun"),
        )
        fields = {"run": self._record.id, "hook": hook, "how": end.how}
        # Where the flow could not start either, that is said already.
        lost = not end.started and self._record.failure is None
        log = self._context.ambient.log
        (log.error if lost else log.info)(
            "hooks were not run" if lost else "hooks", **fields, about=about(self._record)
        )
        if lost:
            self._add_words(f"{hook} hooks {end.how}")
        self._end(self._record, f"{hook}: {end.how}")

    async def _run_after(self) -> None:
        """Run the commands after the run; the run holds its slot until they have ended, as for hooks."""
        link, began = self._context.link, f"run.after begun: {self._record.after[0][0]}"
        failure = await run_after(
            self._record,
            link=link,
            launcher=self._context.launcher,
            document=self._context.notice_maker.document,
            record_start=lambda: self._store.save(replace(self._record, after_boot=link.boot_id), began),
        )
        if failure is not None:
            fields = {"run": self._record.id, "why": failure, "about": about(self._record)}
            self._context.ambient.log.warning("run.after has failed", **fields)
            self._add_words(f"run.after: {failure}")
        self._store.save(advance(self._record, Event.TOLD), f"run.after: {failure or 'done'}")

    def _add_words(self, words: str) -> None:
        self._store.update(words=f"{self._record.words}; {words}" if self._record.words else words)

    async def _respawn(self) -> None:
        """Start the run again as its next attempt."""
        ended = self._record.attempt
        await forget_commands(self._record, link=self._context.link)
        again = replace(
            self._record, attempt=self._record.attempt + 1, respawned=True, identity=None, pgid=None,
            started_at=None, ended_at=None, exit=None, receipt=None, words=None, before_index=None,
        )  # fmt: skip
        self._store.save(advance(again, Event.RESPAWN), "no flow code ran; started again")
        await self._context.link.forget(self._record.id, ended)
