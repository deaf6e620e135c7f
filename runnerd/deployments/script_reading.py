"""Reads the scripts of the host as their users, and again when they or what they import have changed.

Invariants: a script's code runs as its user only; each script is read by itself, so that one that hangs or fails holds
up no other; a script that changes all the time is read the less often the longer it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from runnerd.core.recording import Recorded, Recording, RecordingFailure, Said
from runnerd.core.settings import ScriptSettings
from runnerd.deployments.dependencies import read_stamp
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

RECHECK_EVERY_S = 15.0
READ_GAP_MIN_S = 10.0  # after a failure twice as long each time; so when it changes all the time
READ_GAP_MAX_S = 300.0
_AT_ONCE = 2  # each is the start of an interpreter that imports Prefect
_ROUND_BOUND_S = 3600.0  # the longest time without a beat
_LOOP = "scripts"


@dataclass(slots=True)
class _Read:
    """A script as it was last read. `stamps`: what it depends on; `gap_s`: after `at` it is not read again so soon."""

    script: ScriptSettings
    outcome: Recorded
    stamps: Mapping[str, str]
    at: float
    gap_s: float


class ScriptReading:
    """Reads the scripts that are wanted.

    `changed` is set, and `entered` cleared, when an outcome is another one than before; who puts it in force sets that.
    `settled`: each wanted script is known as it was when it was last wanted.
    """

    def __init__(
        self,
        *,
        record: Callable[[ScriptSettings], Awaitable[Recorded]],
        calls: BoundedCalls,
        ambient: Ambient,
    ) -> None:
        """`record` runs a script as its user, and says what it serves."""
        self._record = record
        self._calls = calls
        self._log, self._clock, self._pulse = ambient.log, ambient.clock, ambient.pulse
        self._contained = Containment(log=ambient.log, loop=_LOOP, passing=())
        self._wanted: dict[str, ScriptSettings] = {}
        self._read: dict[str, _Read] = {}
        self._pending: set[str] = set()  # to be compared, and read where that is needed, since they were last wanted
        self._forced: set[str] = set()  # of these, to be read whatever the comparison says
        self._under_way: set[str] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._woken = asyncio.Event()
        self.changed, self.entered = asyncio.Event(), asyncio.Event()
        self.entered.set()
        self.settled = asyncio.Event()
        self.settled.set()

    def want(self, scripts: Sequence[ScriptSettings], *, afresh: bool = False) -> None:
        """Read these scripts and no others, where anything has changed; with `afresh`, all of them."""
        self._wanted = {script.file: script for script in scripts}
        self._read = {file: read for file, read in self._read.items() if file in self._wanted}
        self._pending = set(self._wanted)
        self._forced = {file for file in self._wanted if afresh or not isinstance(self._outcome(file), Recording)}
        self._note_settled()
        self._woken.set()

    def outcomes(self) -> dict[str, Recorded]:
        """Return what is known of the wanted scripts, by their files; those that were not read yet are missing."""
        return {file: read.outcome for file, read in self._read.items()}

    def unread(self) -> list[str]:
        """Name the wanted scripts that are still to be read, or compared with what was read."""
        return [script.path for file, script in self._wanted.items() if file in self._pending]

    def _outcome(self, file: str) -> Recorded | None:
        """Return what is known of a wanted script with its present settings."""
        read = self._read.get(file)
        return read.outcome if read is not None and read.script.run == self._wanted[file].run else None

    def _note_settled(self) -> None:
        if self._pending:
            self.settled.clear()
        else:
            self.settled.set()

    async def run(self) -> None:
        """Read for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._pulse.beat(_LOOP, within_s=_ROUND_BOUND_S)
                self._woken.clear()
                with self._contained.item("round"):
                    for script in await self._list_due():
                        self._under_way.add(script.file)
                        tasks.create_task(self._read_one(script))
                try:
                    async with asyncio.timeout(RECHECK_EVERY_S):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def _list_due(self) -> list[ScriptSettings]:
        due = []
        for file, script in list(self._wanted.items()):
            if file in self._under_way:
                continue
            if await self._is_due(file):
                due.append(script)
            elif file not in self._forced:  # a reload may have come meanwhile
                self._pending.discard(file)
        self._note_settled()
        return [script for script in due if self._wanted.get(script.file) is script]

    async def _is_due(self, file: str) -> bool:
        read, outcome = self._read.get(file), self._outcome(file)
        if read is None or outcome is None or file in self._forced:
            return True
        if file not in self._pending and self._clock() - read.at < read.gap_s:
            return False
        return isinstance(outcome, RecordingFailure) or await self._has_changed(read)

    async def _has_changed(self, read: _Read) -> bool:
        """Compare what the script depends on; what this user may not see, or what does not answer, has not changed."""
        now = await self._stamps(read.script, read.stamps)
        return any(now.get(path) not in (None, stamp) for path, stamp in read.stamps.items())

    async def _stamps(self, script: ScriptSettings, paths: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
        def read() -> dict[str, str]:
            return {path: stamp for path in paths if (stamp := read_stamp(path)) is not None}

        found = await self._calls.call(script.run.working_directory, read)
        return {} if isinstance(found, Unanswered) else found

    async def _read_one(self, script: ScriptSettings) -> None:
        file, outcome = script.file, None
        self._forced.discard(file)
        more = [script.run.environment_file] if script.run.environment_file is not None else []
        try:
            with self._contained.item(f"script {script.path}"):
                async with self._places:
                    # Stamped before the script is read: a change in between is then seen as one.
                    stamps = await self._stamps(script, [file, *more])
                    outcome = await self._record(script)
            if outcome is None:
                why = f"{script.path}: cannot be read, by a fault of runnerd; see its log"
                outcome, stamps = RecordingFailure(said=Said(why)), {}
            if self._wanted.get(file) == script:
                self._pending.discard(file)
                self._note(script, outcome, stamps)
        finally:
            self._under_way.discard(file)
            self._woken.set()

    def _note(self, script: ScriptSettings, outcome: Recorded, stamps: Mapping[str, str]) -> None:
        before = self._read.get(script.file)
        if isinstance(outcome, Recording):
            stamps = {**(outcome.dependencies or {}), **stamps}
        now, gap_s = self._clock(), READ_GAP_MIN_S
        if before is not None and now - before.at < 4 * before.gap_s:
            gap_s = min(2 * before.gap_s, READ_GAP_MAX_S)
        self._read[script.file] = _Read(script, outcome, stamps, now, gap_s)
        self._note_settled()
        if before is None or _content(before.outcome) != _content(outcome) or before.script != script:
            about = {"script": script.file, "user": script.run.user}
            if isinstance(outcome, Recording):
                self._log.info("read what a script serves", deployments=len(outcome.served), **about)
            else:
                self._log.warning("cannot read what a script serves", what=outcome.said.message, **about)
            self.entered.clear()
            self.changed.set()


def _content(outcome: Recorded) -> object:
    """Return what a configuration is made of, without the stamps."""
    return (outcome.served, outcome.left_out) if isinstance(outcome, Recording) else outcome.said
