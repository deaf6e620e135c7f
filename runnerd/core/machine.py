"""Decides the phases of a run, its verdict and its hooks, in pure functions and in no other module.

Invariants: `advance` never leaves the table and never raises; a late event changes nothing; a run ends only through
`reporting`, so that the API is read before any verdict. `settle` is called only when the process is known to be dead:
process dead -> read -> decide -> report. A late verdict would overwrite a success.

`python -m runnerd.core.machine` prints the transition table as docs/machine.md holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from runnerd.core.commands import CommandRules
from runnerd.core.guests import Guest
from runnerd.core.place import Json
from runnerd.core.prefect import ApiState, StateType, Verdict
from runnerd.core.process import Exit, Identity, Receipt
from runnerd.core.settings import StopThen


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


class Settlement(StrEnum):
    """Names what to do about a run whose process is dead."""

    NOTHING = "nothing"
    REPORT = "report"
    SPAWN_AGAIN = "spawn again"
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Holds a settlement; `verdict` is set if and only if it is REPORT."""

    settlement: Settlement
    verdict: Verdict | None = None


_NOTHING = Decision(settlement=Settlement.NOTHING)
_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
_WAITING = (StateType.PAUSED, StateType.SCHEDULED)


def _report(kind: StateType, message: str, name: str | None = None) -> Decision:
    return Decision(settlement=Settlement.REPORT, verdict=Verdict(type=kind, name=name, message=message))


def settle(record: RunRecord, state: ApiState | None, *, then: StopThen, now: datetime, run_count: int = 0) -> Decision:
    """Decide what to report to the API about a run whose process is dead, by the run's state in the API.

    `state` is None when the run is not in the API any more. `then` is stop.then, which applies to evicted runs.
    `run_count`: how often the run has been Running, by the API; it decides whether a failed command is retried.
    """
    if state is None:
        return Decision(settlement=Settlement.FORGET)
    if state.type in _ENDED or _taken_over(record, state):
        return _NOTHING  # the run ended before we ended it, or is another host's
    words = record.words or EXIT_UNKNOWN
    if state.type is StateType.CANCELLING:
        return _report(StateType.CANCELLED, words)
    match record.intent:
        case Intent.CANCEL:
            return _report(StateType.CANCELLED, words)
        case Intent.TIMEOUT:
            return _fail(record, words, now=now, run_count=run_count, name="TimedOut")
        case Intent.EVICT:
            return _settle_evicted(record, state, words, then, now)
    return _settle_unasked(record, state, words, now=now, run_count=run_count)


def _taken_over(record: RunRecord, state: ApiState) -> bool:
    """Return whether another host has the run: our process rescheduled it, and the other host has claimed it since."""
    ours = (None, record.transition_id)
    return state.type is StateType.PENDING and record.transition_id != CLAIM_UNKNOWN and state.transition_id not in ours


def _settle_evicted(record: RunRecord, state: ApiState, words: str, then: StopThen, now: datetime) -> Decision:
    if then == "cancel":
        return _report(StateType.CANCELLED, words)
    if state.type in _WAITING and not state.needs_process:
        return _NOTHING  # a verdict would destroy its suspension or its retry
    unoffered = record.guest is not None and record.deployment_id is None  # rescheduled, no host would get the run
    if then == "crash" or unoffered:
        return _NOTHING if state.type is StateType.CRASHED else _report(StateType.CRASHED, words)
    again = Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", message=words, scheduled_time=now)
    return Decision(settlement=Settlement.REPORT, verdict=again)


def _settle_command(
    record: RunRecord, rules: CommandRules, state: ApiState, words: str, *, now: datetime, run_count: int
) -> Decision:
    """Decide by the exit code. Nothing is started again here: Pending is no proof that a command has not run."""
    if state.type is StateType.CRASHED or state.type in _WAITING:
        return _NOTHING  # set by others while the command ran
    code = record.exit.code if record.exit is not None and record.failure is None else None
    if code is None:
        return _report(StateType.CRASHED, words)
    if code in rules.success_exit_codes:
        return _report(StateType.COMPLETED, words)
    return _fail(record, words, now=now, run_count=run_count)


def _fail(record: RunRecord, words: str, *, now: datetime, run_count: int, name: str | None = None) -> Decision:
    """Report a failure; of a command that may be retried, the retry, as Prefect's own rule does for flows."""
    rules = record.command
    if rules is None or (run_count or record.attempt) > rules.retries:
        return _report(StateType.FAILED, words, name)
    at = now + timedelta(seconds=rules.retry_delay_s)
    again = Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", message=words, scheduled_time=at)
    return Decision(settlement=Settlement.REPORT, verdict=again)


def _settle_unasked(record: RunRecord, state: ApiState, words: str, *, now: datetime, run_count: int) -> Decision:
    if record.command is not None:
        return _settle_command(record, record.command, state, words, now=now, run_count=run_count)
    if state.type is StateType.CRASHED or (state.type in _WAITING and not state.needs_process):
        return _NOTHING  # the flow's process reported that state itself
    if state.type is StateType.PENDING and _nothing_ran(record):
        return Decision(settlement=Settlement.SPAWN_AGAIN)
    return _report(StateType.CRASHED, words)


def _nothing_ran(record: RunRecord) -> bool:
    """Return whether a run that is still PENDING may be started again: its exit is unknown, so no flow code ran."""
    unknown = record.exit is None or (record.exit.code is None and record.exit.signal is None)
    return unknown and record.failure is None and not record.respawned


def state_by_receipt(record: RunRecord) -> ApiState | None:
    """Return the state that the run's process has reported by its own account, if no verdict could follow from it.

    Second best to reading the state. A process that did not exit 0, or a verdict that was sent before, contradicts it.
    """
    receipt, ended = record.receipt, record.exit
    if receipt is None or receipt.state not in (StateType.COMPLETED, StateType.FAILED) or record.verdict_id is not None:
        return None
    if ended is None or ended.code != 0:
        return None
    return ApiState(type=receipt.state, name=receipt.name or receipt.state.title())


def hook_due(record: RunRecord, state: ApiState) -> tuple[Hook | None, bool]:
    """Choose the hooks that the run's last `state` requires; also return if the flow's own process reported that state.

    The flow's process leaves the hooks on cancellation and crash to runnerd: a killed process cannot run hooks, and
    how far a cancelled one got before its end must not decide which of the two runs them.
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
    """Return the transition table as Markdown, one row for each transition."""
    rows = ["| phase | event | becomes |", "| --- | --- | --- |"]
    rows += [f"| {phase} | {event} | {after} |" for (phase, event), after in _TABLE.items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":  # pragma: no cover
    import sys

    sys.stdout.write(table())
