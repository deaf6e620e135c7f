"""What is told of a run of a command, by its exit code, its signal, and how often it has run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runnerd.core.commands import CommandRules
from runnerd.core.exit_words import start_words
from runnerd.core.machine import Intent, Phase, RunRecord
from runnerd.core.prefect import ApiState, StateType, Verdict
from runnerd.core.process import Exit
from runnerd.core.verdicts import Decision, Settlement, settle
from tests.kits.nouns import a_record

NOW = datetime(2025, 6, 1, 3, 4, 5, tzinfo=UTC)
RULES = CommandRules(success_exit_codes=(0, 3), retries=2, retry_delay_s=90.0)


def ended(exit: Exit | None, *, rules: CommandRules = RULES, **changes: object) -> RunRecord:
    return a_record(phase=Phase.REPORTING, transition_id="t", command=rules, exit=exit, words="as it ended", **changes)


def decide(record: RunRecord, kind: StateType = StateType.RUNNING, *, run_count: int = 9) -> Decision:
    state = ApiState(type=kind, name=kind.title(), transition_id="t")
    return settle(record, state, then="cancel", now=NOW, run_count=run_count)


def verdict(kind: StateType, name: str | None = None, at: datetime | None = None) -> Decision:
    what = Verdict(type=kind, name=name, message="as it ended", scheduled_time=at)
    return Decision(settlement=Settlement.REPORT, verdict=what)


AGAIN = verdict(StateType.SCHEDULED, "AwaitingRetry", NOW + timedelta(seconds=90))


@pytest.mark.parametrize("code", range(256))
def test_the_exit_code_decides(code: int) -> None:
    wanted = verdict(StateType.COMPLETED) if code in (0, 3) else verdict(StateType.FAILED)
    assert decide(ended(Exit(code=code))) == wanted


@pytest.mark.parametrize("exit", [None, Exit(), Exit(signal=9), Exit(signal=11), Exit(signal=9, oom=True)])
@pytest.mark.parametrize("kind", [StateType.RUNNING, StateType.PENDING])
def test_without_an_exit_code_it_crashed_and_is_not_started_again(exit: Exit | None, kind: StateType) -> None:
    assert decide(ended(exit), kind, run_count=1) == verdict(StateType.CRASHED)


def test_what_could_not_start_crashed() -> None:
    assert decide(ended(None, failure="no such command"), StateType.PENDING) == verdict(StateType.CRASHED)
    assert decide(ended(Exit(code=0), failure="odd"), StateType.PENDING) == verdict(StateType.CRASHED)


@pytest.mark.parametrize("run_count", [1, 2])
def test_a_failure_is_retried_while_it_may_be(run_count: int) -> None:
    assert decide(ended(Exit(code=1)), run_count=run_count) == AGAIN
    assert decide(ended(Exit(signal=15), intent=Intent.TIMEOUT), run_count=run_count) == AGAIN


def test_the_last_failure_is_final() -> None:
    assert decide(ended(Exit(code=1)), run_count=3) == verdict(StateType.FAILED)
    assert decide(ended(Exit(signal=15), intent=Intent.TIMEOUT), run_count=3) == verdict(StateType.FAILED, "TimedOut")


def test_where_the_api_has_not_counted_the_attempts_here_count() -> None:
    assert decide(ended(Exit(code=1), attempt=2), run_count=0) == AGAIN
    assert decide(ended(Exit(code=1), attempt=3), run_count=0) == verdict(StateType.FAILED)


def test_a_flow_is_never_retried_here() -> None:
    flow = replace(ended(Exit(code=1)), command=None)
    assert decide(flow, run_count=1) == verdict(StateType.CRASHED)
    assert decide(replace(flow, intent=Intent.TIMEOUT), run_count=1) == verdict(StateType.FAILED, "TimedOut")


def test_a_cancelled_one_is_neither_retried_nor_judged() -> None:
    for exit in (Exit(code=0), Exit(code=1), Exit(signal=15)):
        assert decide(ended(exit, intent=Intent.CANCEL), run_count=1) == verdict(StateType.CANCELLED)
        assert decide(ended(exit), StateType.CANCELLING, run_count=1) == verdict(StateType.CANCELLED)


@pytest.mark.parametrize("kind", [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED,
                                  StateType.SCHEDULED, StateType.PAUSED])  # fmt: skip
def test_a_state_that_others_have_set_stays(kind: StateType) -> None:
    assert decide(ended(Exit(code=1)), kind, run_count=1).settlement is Settlement.NOTHING


@pytest.mark.parametrize(
    ("message", "stage", "words"),
    [
        ("cannot start: no such interpreter /x", "exec", "no such command /x (203/EXEC)"),
        ("cannot start: no such interpreter /x", None, "no such interpreter /x"),
        ("cannot start: working directory /y does not exist", "working-directory",
         "working directory /y does not exist (200/CHDIR)"),
        ("cannot fork: x", "fork", "cannot fork: x"),
    ],
)  # fmt: skip
def test_why_it_could_not_start_is_said_as_systemd_says_it(message: str, stage: str | None, words: str) -> None:
    assert start_words(message, stage=stage) == words
