"""Whatever a server sends is read or left out; nothing is guessed and nothing crashes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runnerd.core.prefect import StateType
from runnerd.prefect_api.parse import parse_deployment, parse_each, parse_flow_run, parse_state
from runnerd.prefect_api.values import Unreadable, read_time
from tests.kits.nouns import an_id

RUN: dict[str, Any] = {
    "id": an_id("r"),
    "name": "fast-falcon",
    "flow_id": an_id("f"),
    "deployment_id": an_id("d"),
    "state": {"type": "SCHEDULED", "name": "Late", "state_details": {"scheduled_time": "2026-11-22T12:00:00Z"}},
    "next_scheduled_start_time": "2026-11-22T12:00:00Z",
    "expected_start_time": "2026-11-22T11:59:00+00:00",
    "parameters": {"x": 1},
    "tags": ["a", "b"],
    "auto_scheduled": True,
    "run_count": 2,
    "some_key_of_next_year": {},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*RUN, "type"]) | st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T12:00:00+00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("2026-11-22T14:00:00.5+02:00", datetime(2026, 11, 22, 12, 0, 0, 500000, tzinfo=UTC)),
        ("2026-11-22 12:00:00.77+00:00", datetime(2026, 11, 22, 12, 0, 0, 770000, tzinfo=UTC)),
        ("2026-11-22T12:00:00.123456789Z", datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-22T12:00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("soon", None),
        ("", None),
        (None, None),
        (17, None),
    ],
)
def test_times(text: Any, moment: datetime | None) -> None:
    assert read_time(text) == moment


def test_a_flow_run() -> None:
    run, ids = parse_flow_run(RUN), [an_id(letter) for letter in "rfd"]
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert (run.id, run.name, run.flow_id, run.deployment_id) == (*ids[:1], "fast-falcon", *ids[1:])
    assert (run.state.type, run.state.name, run.state.scheduled_time) == (StateType.SCHEDULED, "Late", noon)
    assert (run.next_scheduled_start_time, run.expected_start_time) == (noon, noon.replace(hour=11, minute=59))
    assert (run.parameters, run.tags, run.auto_scheduled, run.run_count) == ({"x": 1}, ("a", "b"), True, 2)


@pytest.mark.parametrize(
    ("state", "retry_type", "needs_process"),
    [
        ({"type": "SCHEDULED", "name": "AwaitingRetry"}, "in_process", True),
        ({"type": "SCHEDULED", "name": "AwaitingRetry"}, "reschedule", False),
        ({"type": "SCHEDULED", "name": "AwaitingRetry"}, None, False),
        ({"type": "SCHEDULED", "name": "Resuming"}, "in_process", False),  # retried in its process, then suspended
        ({"type": "RUNNING"}, "in_process", False),
        ({"type": "PAUSED", "state_details": {"pause_reschedule": False}}, None, True),
        ({"type": "PAUSED", "state_details": {"pause_reschedule": True}}, "in_process", False),
        ({"type": "PAUSED"}, None, True),
    ],
)
def test_what_only_the_process_of_a_run_can_go_on_with(state: Any, retry_type: Any, needs_process: bool) -> None:
    run = parse_flow_run({**RUN, "state": state, "empirical_policy": {"retries": 1, "retry_type": retry_type}})
    assert run.state.needs_process is needs_process
    assert run.retries_in_process is (retry_type == "in_process")


def test_a_flow_run_with_little() -> None:
    run = parse_flow_run(
        {"id": an_id("r"), "flow_id": an_id("f"), "state": {"type": "RUNNING"}, "tags": None, "parameters": None}
    )
    assert (run.name, run.deployment_id, run.parameters, run.tags, run.run_count) == ("", None, {}, (), 0)
    assert (run.state.name, run.state.transition_id) == ("Running", None)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"flow_id": 7},
        {"id": "r"},
        {"deployment_id": "d"},
        {"state": None},
        {"state": {"type": "DREAMING"}},
        {"state": {}},
        {"state": "RUNNING"},
    ],
)
def test_what_everything_hangs_on_is_not_guessed(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        parse_flow_run({**RUN, **change})


def test_one_bad_run_does_not_hide_the_others() -> None:
    good, bad = parse_each([RUN, {"id": an_id("x"), "name": "y"}, 7, {**RUN, "id": an_id("s")}], parse_flow_run)
    assert [run.id for run in good] == [an_id("r"), an_id("s")]
    assert bad == [f"{an_id('x')}: flow_id is missing", "a flow run is not an object"]
    with pytest.raises(Unreadable):
        parse_each({"detail": "?"}, parse_flow_run)


# No deadline: on a busy machine an example may take any time at all.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_nothing_but_unreadable_is_raised(data: Any) -> None:
    for parse in (parse_flow_run, parse_state, parse_deployment):
        for shaped in (data, {**RUN, "state": data}, {**RUN, "tags": data, "parameters": data, "run_count": data}):
            try:
                parse(shaped)
            except Unreadable:
                pass
    read_time(data)
