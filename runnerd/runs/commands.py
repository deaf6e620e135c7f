"""Runs an administrator's commands before the start of a run and after its end, in its directory and as its user.

Invariants: the spawner starts each command once for each attempt of a run, so a later daemon waits for what an earlier
one has begun; those before a run end before its process is started, those after it begin once the API has its end; a
stop of the run stops the command before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from runnerd.core.errors import NotRecorded, SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.launch.prepared import HookLauncher, Prepared
from runnerd.launch.run_commands import after_key, before_key, command_spec
from runnerd.processes.command_words import failure_of, output_size
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record
from runnerd.runs.hooks import prepare_afterwork
from runnerd.runs.record_store import RunContext, RunRecordStore


class BeforeCommands:
    """Runs the commands before the starts of one run; `wake` is set whenever something about the run has changed."""

    def __init__(self, *, store: RunRecordStore, context: RunContext, wake: asyncio.Event) -> None:
        self._store = store
        self._context = context
        self._wake = wake
        self._passed = 0  # the attempt before which every command has succeeded

    def due(self, prepared: Prepared) -> bool:
        """Whether commands are to be run before this attempt's process is started."""
        record = self._store.record
        known = self._context.link.record(record.id, record.attempt)
        return bool(prepared.before) and self._passed != record.attempt and known is None

    async def run(self, spec: LaunchSpec, prepared: Prepared, *, now: Callable[[], bool]) -> str | None:
        """Run the commands; return why one has failed, and so why the run is not to be started.

        None when they have succeeded, and when the run has an intent: then the command has been stopped, with SIGKILL
        at once where `now` says so. Raises NotRecorded.
        """
        for index, command in enumerate(prepared.before):
            self._store.save(
                replace(self._store.record, before_index=index, step=f"run.before: {command[0]}"), "before"
            )
            self._context.feed.publish(self._store.record)
            failure = await self._run_one(spec, prepared, index, now=now)
            self._store.update(step=None)
            if self._store.record.intent is not None:
                return None
            if failure is not None:
                return f"run.before: {command[0]}: {failure}"
        self._passed = self._store.record.attempt
        return None

    async def _run_one(
        self, flow: LaunchSpec, prepared: Prepared, index: int, *, now: Callable[[], bool]
    ) -> str | None:
        record = self._store.record
        made = flow.working_directory if index and flow.make_directory else None  # by the first command
        spec = command_spec(
            flow,
            prepared.before[index],
            self._context.notice_maker.document(record),
            key=before_key(record, index),
            timeout_s=prepared.before_timeout_s,
            working_directory=made,
        )
        since = await output_size(spec.output)
        self._context.link.add_listener(spec.key, self._wake.set)
        try:
            seen = await self._run_or_stop(spec, now=now)
        except NotRecorded:
            raise
        except SpawnerError as error:
            return str(error)
        finally:
            self._context.link.remove_listener(spec.key)
        return await failure_of(seen, spec, since=since)

    async def _run_or_stop(self, spec: LaunchSpec, *, now: Callable[[], bool]) -> Record | None:
        """Run one command to its end, and stop it when the run gets an intent; None when the spawner was lost."""
        link, stopped = self._context.link, 0  # 1: by its stop signal, 2: by SIGKILL
        seen: Record | None = await link.spawn(spec)
        while seen is not None and seen.phase != "exited":
            self._wake.clear()
            intent, wanted = self._store.record.intent, 2 if now() else 1
            if intent is not None and stopped < wanted:
                stopped = wanted
                await link.stop(spec.key, spec.attempt, reason=intent, timeout_s=0.0 if now() else None)
            seen = link.record(spec.key, spec.attempt) if link.connected else seen
            if seen is not None and seen.phase != "exited":
                await self._wake.wait()
        return seen


async def run_after(
    record: RunRecord,
    *,
    link: SpawnerLink,
    launcher: HookLauncher,
    document: Callable[[RunRecord], Json],
    record_start: Callable[[], None],
) -> str | None:
    """Run the commands after a run, each also when those before it have failed; return why the first has, if any has.

    `record_start` is called before the first is started, so that no later boot starts them again.
    """
    if record.after_boot not in (None, link.boot_id):
        return "the host restarted meanwhile; it is not run again"
    flow = await prepare_afterwork(record, launcher)
    if not isinstance(flow, LaunchSpec):
        return f"could not start: {flow}"
    if record.after_boot is None:
        record_start()
    failures = [
        f"{command[0]}: {failure}"
        for index, command in enumerate(record.after)
        if (failure := await _run_one_after(flow, record, index, link=link, document=document)) is not None
    ]
    return failures[0] if failures else None


async def _run_one_after(
    flow: LaunchSpec, record: RunRecord, index: int, *, link: SpawnerLink, document: Callable[[RunRecord], Json]
) -> str | None:
    spec = command_spec(
        flow,
        record.after[index],
        document(record),
        key=after_key(record, index),
        timeout_s=record.after_timeout_s,
        # The hooks' own directory may not exist: only a flow with hooks has one.
        working_directory=record.scratch if flow.make_directory else None,
    )
    since = await output_size(spec.output)
    try:
        return await failure_of(await link.run_to_end(spec), spec, since=since)
    except SpawnerError as error:
        return f"could not start: {error}"


async def forget_commands(record: RunRecord, *, link: SpawnerLink) -> None:
    """Have the spawner forget the commands of this attempt of a run."""
    for index in range(record.before_index + 1 if record.before_index is not None else 0):
        await link.forget(before_key(record, index), record.attempt)
    if record.after_boot is not None:
        for index in range(len(record.after)):
            await link.forget(after_key(record, index), record.attempt)
