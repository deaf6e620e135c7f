"""Decides the phases of a run, in pure functions and in no other module; what is reported of its end: `verdicts`.

Invariants: `advance` never leaves the table and never raises; a late event changes nothing; a run ends only through
`reporting`, so that the API is read before any verdict.

`python -m runnerd.core.machine` prints the transition table as docs/machine.md holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from runnerd.core.commands import CommandRules
from runnerd.core.guests import Guest
from runnerd.core.place import Json
from runnerd.core.prefect import StateType
from runnerd.core.process import Exit, Identity, Receipt


class Phase(StrEnum):
    """Names the phases of a run on this host."""

    CLAIMING = "claiming"  # the transition id of the claim is on disk; the API may have the claim
    STARTING = "starting"  # the claim is won; the spawner may have the request
    RUNNING = "running"
    STOPPING = "stopping"  # stop_signal was requested
    KILLING = "killing"  # SIGKILL was requested
    REPORTING = "reporting"  # no process is left; the verdict is being reported
    DONE = "done"


class Intent(StrEnum):
    """Names the reasons why runnerd ends a run."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    EVICT = "evict"


class Hook(StrEnum):
    """Names, as Prefect does, the state change hooks of a flow that an ended run may require."""

    ON_CANCELLATION = "on_cancellation"
    ON_CRASHED = "on_crashed"
    ON_FAILURE = "on_failure"


class Event(StrEnum):
    """Names what moves a run to its next phase; journals hold these words."""

    CLAIM_WON = "claim won"
    CLAIM_LOST = "claim lost"
    STARTED = "started"
    STOP = "stop"
    KILL = "kill"
    EXITED = "exited"
    TOLD = "told"
    RESPAWN = "respawn"


_TABLE: dict[tuple[Phase, Event], Phase] = {
    (Phase.CLAIMING, Event.CLAIM_WON): Phase.STARTING,
    (Phase.CLAIMING, Event.CLAIM_LOST): Phase.DONE,
    (Phase.STARTING, Event.STARTED): Phase.RUNNING,
    (Phase.STARTING, Event.EXITED): Phase.REPORTING,
    (Phase.RUNNING, Event.STOP): Phase.STOPPING,
    (Phase.RUNNING, Event.KILL): Phase.KILLING,
    (Phase.RUNNING, Event.EXITED): Phase.REPORTING,
    (Phase.STOPPING, Event.KILL): Phase.KILLING,
    (Phase.STOPPING, Event.EXITED): Phase.REPORTING,
    (Phase.KILLING, Event.EXITED): Phase.REPORTING,
    (Phase.REPORTING, Event.RESPAWN): Phase.STARTING,
    (Phase.REPORTING, Event.TOLD): Phase.DONE,
}


CLAIM_UNKNOWN = ""  # the transition id of a run whose claim was lost with a journal
EXIT_UNKNOWN = "ended, exit status unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Holds all that is known of one run on this host; the journal saves it.

    `created_at` is the time of the claim, `run_created_at` that at which the run was created in the API.
    `attempt` counts the processes started here, from 1, also over retries and resumptions.
    `intent` is set once and never changes: the first reason wins.
    `verdict_id` is the transition id of our latest report; on disk before the report is sent.
    `hook` is set when the API has accepted the report and hooks are due: the run is done when the hooks have ended.
    """

    id: str
    name: str
    deployment_id: str | None
    deployment: str
    flow: str
    command: CommandRules | None = None  # of a run whose process is a command, which reports no state itself
    transition_id: str
    created_at: datetime
    run_created_at: datetime | None = None
    due_at: datetime | None = None  # when the flow is to begin; None where that was not ahead of the claim
    ready_s: float | None = None  # from the claim until the process was ready to begin the flow; None: not measured
    tags: tuple[str, ...] = ()
    phase: Phase = Phase.CLAIMING
    intent: Intent | None = None
    attempt: int = 1
    respawned: bool = False  # started again because no flow code had run, which happens once
    identity: Identity | None = None
    pgid: int | None = None
    user: str | None = None
    boot_id: str | None = None  # the boot of its latest start
    start: str = "cold"
    start_problem: str | None = None  # why it was not started warm
    output: str | None = None
    runtime_max_s: float | None = None
    memory_max_bytes: int | None = None
    stop_timeout_s: float | None = None  # None in a record of an older version
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit: Exit | None = None
    receipt: Receipt | None = None  # what the process said in its end
    unread: bool = False  # the receipt has ended the run, and the API has not been read since
    failure: str | None = None  # why no process could be started
    words: str | None = None  # how the run ended, for people
    verdict_id: str | None = None
    api_state: StateType | None = None
    api_state_name: str | None = None
    api_state_message: str | None = None  # of that state; None where it is our own verdict, whose words are `words`
    hook: Hook | None = None
    hook_of_child: bool = False  # the flow's process reported that state itself
    hook_boot: str | None = None  # the boot in which the hooks were begun
    before_index: int | None = None  # the latest command that was begun before this attempt
    step: str | None = None  # which of them is under way, in words
    after: tuple[tuple[str, ...], ...] = ()  # the commands after this attempt
    after_timeout_s: float = 60.0
    after_due: bool = False  # the API has the end, and the commands after it are to be run
    after_boot: str | None = None  # the boot in which they were begun
    pool: str | None = None  # the work pool that offered the run
    queue: str | None = None
    scratch: str | None = None  # the directory made for this attempt, and removed after it
    process_name: str | None = None  # the name in the pool's job configuration
    labels: Mapping[str, str] = field(default_factory=dict)
    leased: bool = False  # the API counts it by a lease, which is renewed until the process does that itself
    stream_output: bool = True  # whether its output goes to systemd's journal as well
    waiting: str | None = None  # what its start waits for
    source: Mapping[str, Json] | None = None  # of its code, by deployments/sources/documents.py
    output_removed: str | None = None  # which bound its output was removed for, before the run was forgotten
    guest: Guest | None = None  # of no deployment or pool of this host, or with code that was named for this run

    @property
    def live(self) -> bool:
        """Whether the run is not done."""
        return self.phase is not Phase.DONE

    @property
    def holds_slot(self) -> bool:
        """Whether the run occupies a slot of this host; one that is cancelled before its claim is won never starts."""
        return self.live and not (self.phase is Phase.CLAIMING and self.intent is Intent.CANCEL)

    def is_held(self, now: datetime) -> bool:
        """Return whether its process was started ahead, and waits until the run is due.

        No process waits for longer than from its claim: a clock that is before that was set back.
        """
        return self.phase is Phase.RUNNING and self.due_at is not None and self.created_at <= now < self.due_at


def advance(record: RunRecord, event: Event) -> RunRecord:
    """Return the record after `event`; the same record where the event has no effect in this phase."""
    after = _TABLE.get((record.phase, event))
    return record if after is None else replace(record, phase=after)


def intend(record: RunRecord, intent: Intent) -> RunRecord:
    """Set the intent; the first one wins, and an intent after the end of the process is ignored."""
    if record.intent is not None or record.phase in (Phase.REPORTING, Phase.DONE):
        return record
    return replace(record, intent=intent)


def table() -> str:
    """Return the transition table as Markdown, one row for each transition."""
    rows = ["| phase | event | becomes |", "| --- | --- | --- |"]
    rows += [f"| {phase} | {event} | {after} |" for (phase, event), after in _TABLE.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":  # pragma: no cover
    import sys

    sys.stdout.write(table())
