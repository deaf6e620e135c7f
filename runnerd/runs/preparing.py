"""Prepares the start of a run: asks for its launch spec, and waits until the start is possible.

Invariant: nothing is waited for longer than until the run has an intent. A stopping daemon would wait with it, while
the API is away or a disk does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from runnerd.core.errors import ApiRejected
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import FlowRun, StateType
from runnerd.core.process import LaunchSpec
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.prepared import Prepared
from runnerd.log.alerts import Alert
from runnerd.log.log import about
from runnerd.runs.record_store import RunContext, RunRecordStore

T = TypeVar("T")
RETRY_S = 10.0
EXECUTE_AHEAD_S = 0.25  # the start of a process on a busy machine; the spawner permits EXECUTE_AHEAD_MAX_S
RECORDED_AHEAD_S = 0.05
UNANSWERED_MAX_S = 300.0  # then the run ends as one that could not start


class Preparing:
    """Prepares the starts of one run; `wake` is set whenever something about the run has changed."""

    def __init__(self, *, store: RunRecordStore, context: RunContext, wake: asyncio.Event) -> None:
        self._store = store
        self._context = context
        self._wake = wake
        self._logged: set[str] = set()
        self._unanswered_from: float | None = None  # by the monotonic clock

    async def prepare(self) -> Prepared:
        """Have the launch spec made; of a run that has an intent, or gets one meanwhile, the result has no meaning."""
        try:
            prepared = await self._unless_intended(lambda: self._context.launcher.prepare(self._store.record))
        except ApiRejected as error:
            return Prepared(start=str(error))
        return prepared or Prepared(start="")

    async def may_have_run(self) -> bool | None:
        """Return whether a process may have run in an earlier boot, which the spawner forgot; not if still PENDING.

        None when the run got an intent before that was known.
        """
        record = self._store.record
        await self._context.link.wait_until_connected()
        if self._context.link.record(record.id, record.attempt) is not None:
            return False  # the spawner's answer to a repeated request has the outcome
        if record.step is not None:
            return False  # run.before was under way
        if record.command is not None:  # which may have run without reporting a state
            return record.boot_id not in (None, self._context.link.boot_id)
        found = await self._unless_intended(lambda: self._read_type(record.id))
        return None if found is None else found != StateType.PENDING

    async def _read_type(self, run_id: str) -> str:
        found = await self._context.api.read_run(run_id)
        return found.state.type if found is not None else ""

    async def _unless_intended(self, request: Callable[[], Awaitable[T]]) -> T | None:
        """Repeat a request while the API is away; None as soon as the run has an intent. Raises ApiRejected."""
        if self._store.record.intent is not None:
            return None
        asked = asyncio.ensure_future(self._store.retry_while_away(request))
        try:
            while not asked.done():
                self._wake.clear()
                if self._store.record.intent is not None:
                    return None
                await self._first(asked)
            return asked.result()
        finally:
            asked.cancel()

    async def _first(self, asked: asyncio.Future[T]) -> None:
        woken = asyncio.ensure_future(self._wake.wait())
        either: set[asyncio.Future[Any]] = {asked, woken}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    async def wait_until_due(self, *, early_s: float = 0.0) -> bool:
        """Wait until a command that was claimed ahead of its time is due; False when the run got an intent meanwhile.

        A flow waits in its process. `early_s`: return so long before. How long it took until the first wait says how
        early the next runs of the deployment are claimed.
        """
        record, now = self._store.record, self._context.ambient.now()
        if record.command is None or record.due_at is None:
            return record.intent is None
        if record.ready_s is None:
            self._store.update(ready_s=max((now - record.created_at).total_seconds(), 0.001) + early_s)
        # At most as long as from the claim: a clock that was set back may say years.
        most_s = (record.due_at - record.created_at).total_seconds()
        until = self._context.ambient.clock() + min((record.due_at - now).total_seconds(), most_s) - early_s
        while self._store.record.intent is None and (left_s := until - self._context.ambient.clock()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
        return self._store.record.intent is None

    @property
    def ahead_s(self) -> float:
        """How long before the run is due its process is started, which then waits before it executes the command."""
        hello = self._context.link.hello
        waits = self._store.record.command is not None and hello is not None and hello.waits
        return EXECUTE_AHEAD_S if waits else 0.0

    async def wait_for_room(self, why: str) -> None:
        """Wait before the next attempt to start: the run is ours, and a full disk is no fault of the run."""
        await self._wait("a run waits for disk space", why)

    async def wait_for_answer(self, what: Unanswered) -> bool:
        """Wait before the next attempt to start: a disk or directory service that hangs is no fault of the run.

        False when that was waited for long enough: the run has a slot of the host, which others need.
        """
        now = self._context.ambient.clock()
        self._unanswered_from = now if self._unanswered_from is None else self._unanswered_from
        if now - self._unanswered_from >= UNANSWERED_MAX_S:
            return False
        await self._wait("a run waits for what does not answer", what.words)
        return True

    async def _wait(self, event: str, why: str) -> None:
        record = self._store.record
        if event not in self._logged:
            fields = {"run": record.id, "why": why, "alert": Alert.CANNOT_START, "about": about(record)}
            self._context.ambient.log.error(event, **fields)
        self._logged.add(event)
        self._store.update(waiting=why)
        self._context.feed.publish(self._store.record)
        self._wake.clear()
        if self._store.record.intent is not None:  # set while the start was tried
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._wake.wait()


def plan_start(record: RunRecord, spec: LaunchSpec, prepared: Prepared, *, boot_id: str) -> RunRecord:
    """Return the record of a run that is about to be started by `spec`, with what its end will depend on."""
    return replace(
        record,
        output=spec.output,
        user=prepared.user,
        runtime_max_s=spec.runtime_max_s,
        memory_max_bytes=spec.memory_max_bytes,
        stop_timeout_s=spec.stop_timeout_s,
        boot_id=boot_id,
        scratch=spec.working_directory if spec.make_directory else None,
        after=prepared.after,
        after_timeout_s=prepared.after_timeout_s,
        waiting=None,
    )


def stuck_behind(records: Iterable[RunRecord], offers: Iterable[FlowRun]) -> dict[str, str]:
    """Return why runs are not to be claimed whose deployment or pool has a run that cannot be started at present.

    They would wait for the same (a disk that hangs, for example), and hold all slots of the host in vain.
    """
    own = [one for one in records if one.guest is None]
    waiting = {_source(one): one.waiting for one in own if one.waiting and one.phase is Phase.STARTING}
    return {run.id: f"a run before it waits: {waiting[_source(run)]}" for run in offers if _source(run) in waiting}


def _source(run: FlowRun | RunRecord) -> tuple[str | None, str | None]:
    """Return what has settings of its own for the start of its runs: the pool, or the deployment."""
    return (run.pool, None) if run.pool is not None else (None, run.deployment_id)
