"""What a flow run goes through: pure functions, and the only place that decides.

Invariants: `advance` never leaves the table and never raises; an event that comes late changes nothing; a run
ends only through `reporting`, so nothing is done before the API was asked. `settle` is called only when the
process is known to be dead: process dead -> read -> decide -> tell. A late verdict would overwrite a success.

`python -m runnerd.core.machine` prints the transition table as docs/machine.md holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from runnerd.core.prefect import ApiState, StateType, Verdict
from runnerd.core.process import Exit, Identity
from runnerd.core.settings import StopThen


class Phase(StrEnum):
    """Where a run stands on this host."""

    CLAIMING = "claiming"  # its claim id is on disk; the API may or may not have it
    STARTING = "starting"  # ours; the spawner may or may not have it
    RUNNING = "running"
    STOPPING = "stopping"  # stop_signal was asked for
    KILLING = "killing"  # SIGKILL was asked for
    REPORTING = "reporting"  # no process is left; the API is to be told
    DONE = "done"


class Intent(StrEnum):
    """Why we end a run."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    EVICT = "evict"


class Hook(StrEnum):
    """Which of a flow's own state change hooks an ended run calls for; the names are Prefect's."""

    ON_CANCELLATION = "on_cancellation"
    ON_CRASHED = "on_crashed"
    ON_FAILURE = "on_failure"


class Event(StrEnum):
    """What can happen to a run."""

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


CLAIM_UNKNOWN = ""  # the transition id of a run whose claim went with a lost journal


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """All we know of one run on this host; what the journal keeps.

    `attempt` counts process starts here, from 1, over retries and resumptions too.
    `intent` is set once and never changes: the first reason wins.
    `verdict_id` is the transition id of what we told the API last; on disk before it is told.
    `hook` is set once the API has been told and hooks are to be run: a run is done when they have ended.
    """

    id: str
    name: str
    deployment_id: str | None
    deployment: str
    flow: str
    transition_id: str
    created_at: datetime
    tags: tuple[str, ...] = ()
    phase: Phase = Phase.CLAIMING
    intent: Intent | None = None
    attempt: int = 1
    respawned: bool = False  # the one second chance of a run whose code never ran is used up
    identity: Identity | None = None
    pgid: int | None = None
    user: str | None = None
    boot_id: str | None = None  # the boot it was last started in
    start: str = "cold"
    output: str | None = None
    runtime_max_s: float | None = None
    memory_max_bytes: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit: Exit | None = None
    failure: str | None = None  # why no process could be started
    words: str | None = None  # how it ended, for people
    verdict_id: str | None = None
    api_state: StateType | None = None
    api_state_name: str | None = None
    hook: Hook | None = None
    hook_of_child: bool = False  # the flow's process reported that state itself
    hook_boot: str | None = None  # the boot in which the hooks were begun
    pool: str | None = None  # the work pool it was taken from
    queue: str | None = None
    scratch: str | None = None  # the directory made for this attempt, which goes with it
    process_name: str | None = None  # what the pool's job configuration calls it
    labels: Mapping[str, str] = field(default_factory=dict)
    leased: bool = False  # the API counts it by a lease, which is renewed until the process does that itself
    stream_output: bool = True  # whether its output goes to systemd's journal as well

    @property
    def live(self) -> bool:
        """Whether it takes up a slot of this host."""
        return self.phase is not Phase.DONE


def advance(record: RunRecord, event: Event) -> RunRecord:
    """The record after `event`; the same one where the event means nothing any more."""
    after = _TABLE.get((record.phase, event))
    return record if after is None else replace(record, phase=after)


def intend(record: RunRecord, intent: Intent) -> RunRecord:
    """Note why we end it; the first reason wins, and one that comes after the process is gone is none."""
    if record.intent is not None or record.phase in (Phase.REPORTING, Phase.DONE):
        return record
    return replace(record, intent=intent)


class Settlement(StrEnum):
    """What to do about a run whose process is dead."""

    NOTHING = "nothing"
    TELL = "tell"
    SPAWN_AGAIN = "spawn again"
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A settlement; `verdict` is there exactly when it is TELL."""

    settlement: Settlement
    verdict: Verdict | None = None


_NOTHING = Decision(settlement=Settlement.NOTHING)
_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
_WAITING = (StateType.PAUSED, StateType.SCHEDULED)


def _tell(kind: StateType, message: str, name: str | None = None) -> Decision:
    return Decision(settlement=Settlement.TELL, verdict=Verdict(type=kind, name=name, message=message))


def settle(record: RunRecord, state: ApiState | None, *, then: StopThen, now: datetime) -> Decision:
    """Decide what the API must be told of a run whose process is dead, from the state it has there.

    `state` is None where the API does not know the run any more. `then` is what stop.then says of evicted runs.
    """
    if state is None:
        return Decision(settlement=Settlement.FORGET)
    if state.type in _ENDED:
        return _NOTHING  # it finished first, whatever we wanted
    if _taken_over(record, state):
        return _NOTHING
    words = record.words or "it ended and nobody saw how"
    if state.type is StateType.CANCELLING:
        return _tell(StateType.CANCELLED, words)
    match record.intent:
        case Intent.CANCEL:
            return _tell(StateType.CANCELLED, words)
        case Intent.TIMEOUT:
            return _tell(StateType.FAILED, words, "TimedOut")
        case Intent.EVICT:
            return _settle_evicted(state, words, then, now)
    return _settle_unasked(record, state, words)


def _taken_over(record: RunRecord, state: ApiState) -> bool:
    """Somebody else's claim: our process rescheduled the run and another host has taken it since."""
    ours = (None, record.transition_id)
    return state.type is StateType.PENDING and record.transition_id != CLAIM_UNKNOWN and state.transition_id not in ours


def _settle_evicted(state: ApiState, words: str, then: StopThen, now: datetime) -> Decision:
    if then == "cancel":
        return _tell(StateType.CANCELLED, words)
    if state.type in _WAITING and not state.needs_process:
        return _NOTHING  # a verdict would destroy its suspension or its retry
    if then == "crash":
        return _NOTHING if state.type is StateType.CRASHED else _tell(StateType.CRASHED, words)
    again = Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", message=words, scheduled_time=now)
    return Decision(settlement=Settlement.TELL, verdict=again)


def _settle_unasked(record: RunRecord, state: ApiState, words: str) -> Decision:
    if state.type is StateType.CRASHED or (state.type in _WAITING and not state.needs_process):
        return _NOTHING  # the child said so itself
    if state.type is StateType.PENDING and _nothing_ran(record):
        return Decision(settlement=Settlement.SPAWN_AGAIN)
    return _tell(StateType.CRASHED, words)


def _nothing_ran(record: RunRecord) -> bool:
    """Still PENDING and no exit known: no flow code ran, so it may be started again, once."""
    unknown = record.exit is None or (record.exit.code is None and record.exit.signal is None)
    return unknown and record.failure is None and not record.respawned


def hook_due(record: RunRecord, state: ApiState) -> tuple[Hook | None, bool]:
    """The hooks that `state`, its last, calls for, and whether the flow's own process reported that state.

    A process we start leaves its hooks on cancellation and crash to us. One that was killed cannot run any, and what
    it reports of a cancel depends on how far it came; so who runs them must not depend on that.
    """
    ours = state.transition_id is not None and state.transition_id == record.verdict_id
    match state.type:
        case StateType.CANCELLED if ours or record.intent in (Intent.CANCEL, Intent.EVICT):
            return Hook.ON_CANCELLATION, False
        case StateType.CRASHED:
            return Hook.ON_CRASHED, not ours
        case StateType.FAILED if ours:
            return Hook.ON_FAILURE, False
    return None, False


def table() -> str:
    """The transition table as text, a row a phase."""
    rows = ["| phase | event | becomes |", "| --- | --- | --- |"]
    rows += [f"| {phase} | {event} | {after} |" for (phase, event), after in _TABLE.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":  # pragma: no cover
    import sys

    sys.stdout.write(table())
