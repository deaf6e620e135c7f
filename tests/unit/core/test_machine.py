"""machine.py: every row and column of what is told after an exit, and a table that no sequence of events leaves."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.machine import Event, Intent, Phase, RunRecord, advance, intend, table
from runnerd.core.prefect import ApiState, StateType, Verdict
from runnerd.core.process import Exit
from runnerd.core.settings import StopThen
from runnerd.core.verdicts import Decision, Settlement, settle
from tests.kits.checkout import ROOT
from tests.kits.nouns import a_record

NOW = datetime(2025, 6, 1, 3, 4, 5, tzinfo=UTC)
WORDS = "exited 1"
OURS, THEIRS = "t-ours", "t-theirs"
THENS: tuple[StopThen, ...] = ("cancel", "crash", "reschedule")
KNOWN = Exit(code=1)
UNKNOWN = Exit()


def ended(intent: Intent | None = None, *, exit: Exit | None = KNOWN, **changes: object) -> RunRecord:
    return a_record(phase=Phase.REPORTING, transition_id=OURS, intent=intent, exit=exit, words=WORDS, **changes)


def in_api(kind: StateType, transition_id: str | None = OURS, *, needs_process: bool = False) -> ApiState:
    return ApiState(type=kind, name=kind.title(), transition_id=transition_id, needs_process=needs_process)


def decide(record: RunRecord, kind: StateType | None, *, then: StopThen = "cancel", by: str | None = OURS) -> Decision:
    return settle(record, in_api(kind, by) if kind else None, then=then, now=NOW)


# --- settle: the table of the design, row by row -------------------------------------------------------------

NOTHING = "nothing"
CANCELLED, CRASHED, TIMED_OUT, AGAIN, FORGET = "CANCELLED", "CRASHED", "TimedOut", "AwaitingRetry", "forget"
SPAWN = "spawn again"

# state in the API:     not by us, cancelled, timeout, evict: cancel, crash, reschedule
TABLE: dict[StateType | None, tuple[str, str, str, str, str, str]] = {
    StateType.COMPLETED: (NOTHING,) * 6,
    StateType.FAILED: (NOTHING,) * 6,
    StateType.CANCELLED: (NOTHING,) * 6,
    StateType.CRASHED: (NOTHING, CANCELLED, TIMED_OUT, CANCELLED, NOTHING, AGAIN),
    StateType.PAUSED: (NOTHING, CANCELLED, TIMED_OUT, CANCELLED, NOTHING, NOTHING),
    StateType.SCHEDULED: (NOTHING, CANCELLED, TIMED_OUT, CANCELLED, NOTHING, NOTHING),
    StateType.CANCELLING: (CANCELLED,) * 6,
    StateType.RUNNING: (CRASHED, CANCELLED, TIMED_OUT, CANCELLED, CRASHED, AGAIN),
    StateType.PENDING: (CRASHED, CANCELLED, TIMED_OUT, CANCELLED, CRASHED, AGAIN),
    None: (FORGET,) * 6,
}
COLUMNS: tuple[tuple[Intent | None, StopThen], ...] = (
    (None, "cancel"),
    (Intent.CANCEL, "cancel"),
    (Intent.TIMEOUT, "cancel"),
    (Intent.EVICT, "cancel"),
    (Intent.EVICT, "crash"),
    (Intent.EVICT, "reschedule"),
)
CELLS = [
    pytest.param(kind, intent, then, wanted, id=f"{kind or 'gone'}-{intent or 'unasked'}-{then}")
    for kind, row in TABLE.items()
    for (intent, then), wanted in zip(COLUMNS, row, strict=True)
]
VERDICTS = {
    CANCELLED: Verdict(type=StateType.CANCELLED, message=WORDS),
    CRASHED: Verdict(type=StateType.CRASHED, message=WORDS),
    TIMED_OUT: Verdict(type=StateType.FAILED, name="TimedOut", message=WORDS),
    AGAIN: Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", message=WORDS, scheduled_time=NOW),
}


def test_the_table_has_every_state() -> None:
    assert set(TABLE) == {*StateType, None}


@pytest.mark.parametrize(("kind", "intent", "then", "wanted"), CELLS)
def test_settle(kind: StateType | None, intent: Intent | None, then: StopThen, wanted: str) -> None:
    decision = decide(ended(intent), kind, then=then)
    if wanted in VERDICTS:
        assert decision == Decision(settlement=Settlement.REPORT, verdict=VERDICTS[wanted])
    else:
        assert decision == Decision(settlement=Settlement(wanted))


@pytest.mark.parametrize("kind", [StateType.PAUSED, StateType.SCHEDULED])
@pytest.mark.parametrize(
    ("intent", "then", "wanted"),
    [(*column, verdict) for column, verdict in zip(COLUMNS, TABLE[StateType.RUNNING], strict=True)],
)
def test_what_waits_in_its_process_ends_as_what_runs(
    kind: StateType, intent: Intent | None, then: StopThen, wanted: str
) -> None:
    decision = settle(ended(intent), in_api(kind, needs_process=True), then=then, now=NOW)
    assert decision == Decision(settlement=Settlement.REPORT, verdict=VERDICTS[wanted])


@pytest.mark.parametrize("kind", [*StateType, None])
@pytest.mark.parametrize("intent", [None, Intent.CANCEL, Intent.TIMEOUT])
def test_stop_then_concerns_evicted_runs_only(kind: StateType | None, intent: Intent | None) -> None:
    assert len({decide(ended(intent), kind, then=then) for then in THENS}) == 1


# --- settle: a run that is still pending ----------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [None, UNKNOWN])
def test_pending_and_nobody_saw_the_exit_is_spawned_again_once(unknown: Exit | None) -> None:
    assert decide(ended(exit=unknown), StateType.PENDING).settlement is Settlement.SPAWN_AGAIN
    again = decide(ended(exit=unknown, respawned=True), StateType.PENDING)
    assert again.verdict == VERDICTS[CRASHED]


def test_pending_by_nobody_is_ours() -> None:
    assert decide(ended(exit=UNKNOWN), StateType.PENDING, by=None).settlement is Settlement.SPAWN_AGAIN


@pytest.mark.parametrize("known", [Exit(code=0), Exit(code=1), Exit(signal=9), Exit(signal=9, oom=True)])
def test_pending_with_a_known_exit_crashed(known: Exit) -> None:
    assert decide(ended(exit=known), StateType.PENDING).verdict == VERDICTS[CRASHED]


def test_pending_that_could_not_start_crashed() -> None:
    assert decide(ended(exit=None, failure="no such user"), StateType.PENDING).verdict == VERDICTS[CRASHED]


@pytest.mark.parametrize("intent", [Intent.CANCEL, Intent.TIMEOUT, Intent.EVICT])
def test_pending_that_we_ended_is_not_spawned_again(intent: Intent) -> None:
    assert decide(ended(intent, exit=UNKNOWN), StateType.PENDING).settlement is Settlement.REPORT


@pytest.mark.parametrize(("intent", "then"), COLUMNS)
@pytest.mark.parametrize("unknown", [KNOWN, UNKNOWN])
def test_pending_by_somebody_else_is_theirs(intent: Intent | None, then: StopThen, unknown: Exit) -> None:
    """Our process rescheduled the run, and another host has claimed it since."""
    decision = decide(ended(intent, exit=unknown), StateType.PENDING, then=then, by=THEIRS)
    assert decision == Decision(settlement=Settlement.NOTHING)


@pytest.mark.parametrize("kind", [kind for kind in StateType if kind is not StateType.PENDING])
def test_only_a_claim_takes_a_run_over(kind: StateType) -> None:
    """Every state that a flow process sets carries a transition id of its own."""
    assert decide(ended(), kind, by=THEIRS) == decide(ended(), kind)


def test_a_verdict_always_has_words() -> None:
    decision = settle(a_record(phase=Phase.REPORTING), in_api(StateType.RUNNING), then="cancel", now=NOW)
    assert decision.verdict is not None
    assert decision.verdict.message == "ended, exit status unknown"


def test_never_a_verdict_over_one_that_finished() -> None:
    """A late state of ours would overwrite a success."""
    finished = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
    intents = (None, *Intent)
    for kind, intent, then, exit, again in itertools.product(finished, intents, THENS, (KNOWN, UNKNOWN), (True, False)):
        for by in (OURS, THEIRS, None):
            record = ended(intent, exit=exit, respawned=again)
            assert decide(record, kind, then=then, by=by).settlement is Settlement.NOTHING


# --- the phases -----------------------------------------------------------------------------------------------

events = st.lists(st.one_of(st.sampled_from(Event), st.sampled_from(Intent)), max_size=30)
START = a_record()


def after(steps: list[Event | Intent], record: RunRecord = START) -> list[RunRecord]:
    """Each record on the way."""
    way = [record]
    for step in steps:
        way.append(intend(way[-1], step) if isinstance(step, Intent) else advance(way[-1], step))
    return way


@given(events)
def test_no_sequence_of_events_leaves_the_table(steps: list[Event | Intent]) -> None:
    way = after(steps)
    assert all(record.phase in set(Phase) for record in way)
    rows = table()
    for (before, now), step in zip(itertools.pairwise(way), steps, strict=True):
        if before.phase is not now.phase:
            assert f"| {before.phase} | {step} | {now.phase} |\n" in rows


@given(events, st.sampled_from(Event))
def test_nothing_leaves_done(steps: list[Event | Intent], event: Event) -> None:
    done = a_record(phase=Phase.DONE)
    assert after(steps, done)[-1] is done
    assert advance(done, event) is done


@given(events)
def test_a_process_that_exits_is_reported(steps: list[Event | Intent]) -> None:
    last = after(steps)[-1]
    alive = {Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING}
    if last.phase in alive:
        assert advance(last, Event.EXITED).phase is Phase.REPORTING


@given(events)
def test_a_claimed_run_is_done_only_by_way_of_reporting(steps: list[Event | Intent]) -> None:
    for before, now in itertools.pairwise(after(steps)):
        if now.phase is Phase.DONE and before.phase is not Phase.DONE:
            assert before.phase in (Phase.REPORTING, Phase.CLAIMING)


@given(events)
def test_the_first_intent_wins(steps: list[Event | Intent]) -> None:
    way = after(steps)
    reasons = [record.intent for record in way if record.intent is not None]
    assert len(set(reasons)) <= 1
    if reasons:
        asked = next(step for step in steps if isinstance(step, Intent))
        assert reasons[0] is asked or way[steps.index(asked)].phase in (Phase.REPORTING, Phase.DONE)


@pytest.mark.parametrize("phase", Phase)
def test_a_reason_counts_while_there_may_be_a_process(phase: Phase) -> None:
    record = a_record(phase=phase)
    wanted = None if phase in (Phase.REPORTING, Phase.DONE) else Intent.CANCEL
    assert intend(record, Intent.CANCEL).intent is wanted


@pytest.mark.parametrize("phase", Phase)
def test_live(phase: Phase) -> None:
    assert a_record(phase=phase).live is (phase is not Phase.DONE)


def test_events_that_come_late_change_nothing() -> None:
    record = a_record(phase=Phase.STOPPING)
    for late in (Event.CLAIM_WON, Event.CLAIM_LOST, Event.STARTED, Event.STOP, Event.TOLD, Event.RESPAWN):
        assert advance(record, late) is record


DOCUMENT = ROOT / "docs" / "machine.md"


def test_the_documented_table_is_the_one_in_force() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_the_documented_decisions_are_the_ones_in_force() -> None:
    said = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 1 + len(COLUMNS):
            said |= {kind.upper(): tuple(cells[1:]) for kind in cells[0].split(", ")}
    for kind, row in TABLE.items():
        wanted = tuple(word.title() if word in (CANCELLED, CRASHED) else word for word in row)
        assert said[kind or "GONE"] == wanted
