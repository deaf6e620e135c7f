"""launch/start_time.py: which processes are held until their run is due, and what they say about their start."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.launch.spec import PROGRAM, program_argv, program_text
from runnerd.launch.start_time import START_AT, hold_until_due, ready_after_s, ready_file
from tests.kits.nouns import NOON, a_record

AHEAD = a_record("r", due_at=NOON + timedelta(seconds=7.5))
SPEC = LaunchSpec(
    key="r",
    attempt=1,
    argv=("/venv/bin/python", "-m", "prefect.engine"),
    environment={"A": "b"},
    working_directory="/srv",
    output="/out/r.1.log",
)


def test_an_engine_that_is_started_ahead_is_held() -> None:
    held = hold_until_due(SPEC, AHEAD, now=NOON)
    assert held.argv == program_argv("/venv/bin/python", "prefect.engine")
    assert held.result == "/out/r.1.log.ready" == ready_file(AHEAD, held.output)
    assert held.environment == {"A": "b", PROGRAM: program_text("run_engine"), START_AT: "1735732807.500000"}
    assert replace(held, argv=SPEC.argv, environment=SPEC.environment, result=None) == SPEC


def test_so_is_one_inside_the_program_of_prefect_2() -> None:
    program = {PROGRAM: program_text("run_engine")}
    inside = replace(SPEC, argv=program_argv("/venv/bin/python", "prefect.engine"), environment=program)
    assert hold_until_due(inside, AHEAD, now=NOON) == replace(hold_until_due(SPEC, AHEAD, now=NOON), environment={
        **program, START_AT: "1735732807.500000"
    })  # fmt: skip


@pytest.mark.parametrize("argv", [("uv", "run", "python", "-m", "prefect.engine"), ("/bin/job",), ("python",)])
def test_another_command_is_left_alone(argv: tuple[str, ...]) -> None:
    assert hold_until_due(replace(SPEC, argv=argv), AHEAD, now=NOON) == replace(SPEC, argv=argv)


@pytest.mark.parametrize("argv", [SPEC.argv, ("/bin/job",)])
@pytest.mark.parametrize(
    ("since_s", "limit_s"), [(0.0, 4.0 + 7.5), (5.0, 4.0 + 2.5), (9.0, 4.0), (-1e9, 4.0 + 86400.0)]
)
def test_the_wait_is_not_of_runtime_max(argv: tuple[str, ...], since_s: float, limit_s: float) -> None:
    now = NOON + timedelta(seconds=since_s)
    assert hold_until_due(replace(SPEC, argv=argv), AHEAD, now=now).runtime_max_s is None
    assert hold_until_due(replace(SPEC, argv=argv, runtime_max_s=4.0), AHEAD, now=now).runtime_max_s == limit_s


def test_a_run_that_was_due_at_its_claim_is_left_alone() -> None:
    assert hold_until_due(SPEC, a_record("r"), now=NOON) == SPEC
    assert ready_file(a_record("r"), "/out/r.1.log") is None
    assert ready_file(AHEAD, None) is None


def at(seconds: float) -> str:
    return f"{NOON.timestamp() + seconds:.3f}\n"


@pytest.mark.parametrize(
    ("text", "ready_s"),
    [
        (at(1.875), 1.875),
        (at(86400.0), 86400.0),
        (at(0.0), None),
        (at(-3600.0), None),  # the clock was set back
        (at(86401.0), None),
        ("", None),
        ("\n", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("-1e300", None),
        ("9" * 64, None),
        ("1735732801.5 and more", None),
    ],
)
def test_only_what_can_be_is_believed(text: str, ready_s: float | None) -> None:
    assert ready_after_s(AHEAD, text) == (None if ready_s is None else pytest.approx(ready_s, abs=0.001))


def test_a_second_start_says_nothing_about_the_first() -> None:
    assert ready_after_s(replace(AHEAD, respawned=True), at(60.0)) is None
