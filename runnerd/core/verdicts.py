"""Verdicts: what is reported of a run whose process is dead, and which hooks its last state requires.

Invariants: every decision is a value, made of the record and of the run's state in the API alone. `settle` is called
only when the process is known to be dead: process dead -> read -> decide -> report. A late verdict would overwrite a
success.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from runnerd.core.commands import CommandRules
from runnerd.core.machine import CLAIM_UNKNOWN, EXIT_UNKNOWN, Hook, Intent, RunRecord
from runnerd.core.prefect import ApiState, StateType, Verdict
from runnerd.core.settings import StopThen


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
