"""Answers the control API's requests about runs: live, offered, and done (from the journal)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.document_feed import subscribe_documents
from runnerd.control.backend.documents import attempt_document, offered_document, run_document
from runnerd.control.backend.elsewhere import RunsElsewhere
from runnerd.control.backend.executing import Executions
from runnerd.control.backend.refusals import UNREGISTERED
from runnerd.control.backend.waiting import WaitReasons
from runnerd.control.contract import Peer, Refused, RunElsewhere
from runnerd.core.errors import JournalError
from runnerd.core.machine import Intent, Phase, RunRecord, intend
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.record_feed import RecordFeed
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.output.attempts import attempt_paths, latest_path, path_of_attempt
from runnerd.output.output_file import OutputBlock, OutputReader
from runnerd.polling.poller import Poller
from runnerd.prefect_api.answers import ApiRefusal
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.run import Run
from runnerd.runs.supervisor import Supervisor
from runnerd.spawner.cgroups.tree import cgroup_name
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment
from runnerd.system.usage import Leader, Measured, UsageMeter, measure_usage

_MEASURE_S = 2.0
_ANSWER_S = 5.0  # how long a request waits for the API's answer about a claim
HISTORY = 1000  # past runs, and runs that wait, that `runnerctl runs` lists at most


class RunsBackend:
    """Implements runnerd.control.contract.HostRuns."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        waits: WaitReasons,
        call_api: ApiCaller,
        elsewhere: RunsElsewhere,
        executions: Executions,
        supervisor: Supervisor,
        poller: Poller,
        registry: Registry,
        journal: Journal,
        link: SpawnerLink,
        feed: RecordFeed,
        output: OutputReader,
        ambient: Ambient,
        measure: Callable[[Sequence[Leader]], Measured] = measure_usage,
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._elsewhere = elsewhere
        self._executions = executions
        self._waits = waits
        self._supervisor = supervisor
        self._poller = poller
        self._registry = registry
        self._journal = journal
        self._link = link
        self._feed = feed
        self._output = output
        self._now = ambient.now
        self._meter = UsageMeter(measure=measure, clock=ambient.clock, now=ambient.now)
        self._contained = Containment(log=ambient.log, loop="control")

    async def adopted(self) -> None:
        await self._supervisor.adopted.wait()

    def records(self) -> list[RunRecord]:
        """Return the records of the live runs."""
        return self._supervisor.records()

    def listing(self, *, history: bool) -> list[Json]:
        live = [self._live_document(record) for record in self._supervisor.records()]
        if not history:
            return live
        known = {document["id"] for document in live}
        past = [record for record in self._journal.history(HISTORY) if record.id not in known]
        return [*(run_document(record, now=self._now()) for record in reversed(past)), *live]

    async def measure(self) -> None:
        """Measure what the live runs use, as far as that is possible within _MEASURE_S."""
        leaders = [
            Leader(identity=record.identity, cgroup=cgroup_name(record.id, record.attempt))
            for record in self._supervisor.records()
            if record.identity is not None and record.ended_at is None
        ]
        # Orders measure first, for the documents that they answer with: no trouble with /proc may refuse an order.
        with self._contained.item("usage"), suppress(TimeoutError):
            async with asyncio.timeout(_MEASURE_S):
                await self._meter.refresh(leaders, boot_id=self._link.boot_id)

    @property
    def measured_at(self) -> datetime | None:
        """When the usage in the documents of live runs was measured."""
        return self._meter.measured_at

    def _live_document(self, record: RunRecord) -> Json:
        identity = record.identity if record.ended_at is None else None
        usage = self._meter.usage_of(identity) if identity is not None else None
        document = run_document(record, usage, now=self._now())
        return document | {"waiting": record.step or self._waits.claimed_reason(record)}

    def document(self, run_id: str) -> Json | None:
        run = self._supervisor.run(run_id)
        if run is not None:
            return self._live_document(run.record)
        offered = self._poller.on_offer.runs.get(run_id)
        if offered is not None:
            return self._offered(offered)
        record = self._journal.run(run_id)
        return run_document(record, now=self._now()) if record is not None else None

    def _offered(self, run: FlowRun) -> Json:
        return offered_document(run, self._registry.by_id(run.deployment_id), waiting=self._waits.reason(run))

    def find(self, ref: str) -> list[Json]:
        records = {record.id: record for record in self._find_records(ref)}
        offers = {run.id: run for run in self._poller.on_offer.runs.values() if run.id not in records}
        exact = [i for i in (*records, *offers) if i == ref]
        named = [r.id for r in records.values() if r.name == ref] + [r.id for r in offers.values() if r.name == ref]
        prefixed = [i for i in (*records, *offers) if i.startswith(ref)]
        chosen = exact or named or prefixed
        return [found for found in (self.document(run_id) for run_id in chosen) if found is not None]

    def _find_records(self, ref: str) -> list[RunRecord]:
        """Find records in the journal and among the live runs: a live run can be cancelled without a journal."""
        live = [run for run in self._supervisor.records() if run.id.startswith(ref) or run.name == ref]
        try:
            past = self._journal.find(ref)
        except JournalError:  # in journal.problem already
            past = []
        known = {record.id for record in past}
        return [*past, *(run for run in live if run.id not in known)]

    async def read_elsewhere(self, run_ids: Sequence[str]) -> dict[str, RunElsewhere] | Refused:
        return await self._elsewhere.read(run_ids)

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        return subscribe_documents(self._feed, changed, now=self._now)

    def output(self, run_id: str, *, attempt: int | None = None) -> str | None:
        record = self._record(run_id)
        if record is None:
            return None
        return latest_path(record) if attempt is None else path_of_attempt(record, attempt)

    async def attempts(self, run_id: str) -> list[Json] | str:
        record = self._record(run_id)
        if record is None:
            return []
        shown, paths = latest_path(record), attempt_paths(record)
        found = await self._output.find(paths)
        if isinstance(found, str):
            return found
        return [attempt_document(one, shown=paths[one.attempt] == shown) for one in found]

    def _record(self, run_id: str) -> RunRecord | None:
        run = self._supervisor.run(run_id)
        return run.record if run is not None else self._journal.run(run_id)

    async def read_output(self, path: str, offset: int) -> OutputBlock | str:
        return await self._output.read(path, offset)

    def waiting(self) -> list[Json]:
        on_offer = self._poller.on_offer
        # Runs of pools belong to every host that serves the pool until one has claimed them.
        due = [run for run in on_offer.runs.values() if run.id in on_offer.waiting and run.pool is None]
        return [self._offered(run) for run in due if self._supervisor.run(run.id) is None]

    def listing_waiting(self) -> list[Json]:
        listed, _ = self._waits.documents(listed_max=HISTORY)
        return [run for its in listed if (run := self.document(its["id"])) is not None]

    def waiting_here(self) -> tuple[list[Json], int]:
        """Return the documents of the first runs that wait, with what for, and how many there are."""
        return self._waits.documents()

    async def cancel(
        self, run_ids: Sequence[str], *, now: bool, peer: Peer, elsewhere: Sequence[FlowRun] = ()
    ) -> list[Json] | Refused:
        others = {run.id: run for run in elsewhere}
        offered = [run for run_id in run_ids if (run := self._withdraw(run_id, others.get(run_id))) is not None]
        self._supervisor.cancel(run_ids, now=now)
        runs = {run_id: run for run_id in run_ids if (run := self._supervisor.run(run_id)) is not None}
        # The intent is set only once it is on disk; a record that can still take it was not written.
        if any(intend(run.record, Intent.CANCEL) is not run.record for run in runs.values()):
            raise JournalError(f"cannot cancel: {self._journal.problem or 'see the log of runnerd'}")
        if offered and (refused := await self._await_withdrawals(offered)) is not None:
            return refused
        # Of a run that has ended meanwhile too: what is done must not fail because the journal cannot be read.
        ended = {run_id: self._live_document(run.record) for run_id, run in runs.items()}
        documents = (ended.get(run_id) or self.document(run_id) for run_id in run_ids)
        return [found for found in documents if found is not None]

    def _withdraw(self, run_id: str, elsewhere: FlowRun | None) -> Run | None:
        """Take a run off offer and begin to cancel it in the API; also one that only the API has.

        Returns None when it is neither. Raises JournalError.
        """
        listed = self._poller.on_offer.withdraw(run_id)
        offer = listed or elsewhere
        if offer is None or self._supervisor.run(run_id) is not None:
            return None
        if not self._supervisor.cancel_offer(offer):
            if listed is not None:
                self._poller.put_on_offer(listed)
            raise JournalError(f"cannot cancel: {self._supervisor.record_problem}")
        return self._supervisor.run(run_id)

    async def _await_withdrawals(self, runs: Sequence[Run]) -> Refused | None:
        """Wait until the API has answered about these runs, for a moment, and say what kept it from cancelling them."""
        ends = [asyncio.ensure_future(run.done.wait()) for run in runs]
        _, unanswered = await asyncio.wait(ends, timeout=_ANSWER_S)
        for end in unanswered:
            end.cancel()
        if unanswered:
            named = f"{len(unanswered)} runs are" if len(unanswered) > 1 else "the run is"
            end_of_it = f"{named} not started here, and cancelled when the API answers"
            return Refused(status=503, detail=f"cannot cancel: the API does not answer; {end_of_it}")
        for run in runs:
            if run.refused is not None:
                detail = f"cannot cancel run {run.record.name} ({run.record.id}): {run.refused}; it is not on this host"
                return Refused(status=409, detail=detail)
        return None

    async def create(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        if not deployment_id:
            return UNREGISTERED
        key = str(uuid.uuid4())  # so that a retry after a lost answer creates no second run
        made = await self._call_api(
            lambda: self._api.create_run(
                deployment_id, parameters=parameters, name=name, tags=tags, idempotency_key=key
            )
        )
        entry = self._registry.by_id(deployment_id)
        cannot = f"cannot create a run of {entry.deployment.name if entry else deployment_id}"
        if isinstance(made, Refused):
            return replace(made, detail=f"{cannot}: {made.detail}")
        if isinstance(made, ApiRefusal):
            return Refused(status=422, detail=f"{cannot}: {made.reason}")
        made = replace(made, pool=entry.deployment.work_pool if entry is not None else None)
        self._poller.put_on_offer(made)
        return self._offered(made)

    async def execute(
        self, flow_run_id: str, *, again: bool, entrypoint: str | None = None, peer: Peer
    ) -> Json | Refused:
        claimed = await self._executions.claim(flow_run_id, again=again, entrypoint=entrypoint, peer=peer)
        if isinstance(claimed, Refused):
            return claimed
        self._poller.on_offer.withdraw(claimed)  # a list that is on its way may have it too, and arrive after its end
        return await self._await_claim(claimed)

    async def _await_claim(self, run_id: str) -> Json | Refused:
        """Wait until the API has answered the claim, for a moment, and return the run's document or the refusal."""
        run = self._supervisor.run(run_id)
        assert run is not None
        with suppress(TimeoutError):  # the claim is repeated until the API answers
            async with asyncio.timeout(_ANSWER_S):
                while run.record.phase is Phase.CLAIMING:
                    await self._supervisor.wait_change()
        if run.refused is not None:
            return Refused(status=409, detail=f"cannot execute flow run {run_id}: {run.refused}")
        return self.document(run_id)
