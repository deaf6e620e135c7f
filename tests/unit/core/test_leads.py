"""core/leads.py: how long before it is due a run is started."""

from __future__ import annotations

import pytest

from runnerd.core.leads import DEPLOYMENTS, STARTS, Leads


def learnt(*ready_s: float, processors: int = 2) -> Leads:
    leads = Leads(processors=processors)
    for seconds in ready_s:
        leads.learn("d", seconds)
    return leads


def test_without_a_start_as_early_as_allowed() -> None:
    assert learnt(2.0).lead_s("another", most_s=10.0) == 10.0
    assert learnt().lead_s(None, most_s=0.0) == 0.0


@pytest.mark.parametrize(
    ("starts", "lead_s"),
    [
        ((2.0,), 3.0),
        ((2.0, 2.0), 3.0),
        ((2.0, 1.0), 1.75),  # the longer one may have been an outlier
        ((2.0, 2.0, 4.0), 7.5),  # the latest counts, and how much they differ
        ((2.0, 2.0, 60.0, 2.0), 3.0),  # and is an outlier one start later
        ((2.0, 4.0, 2.0, 4.0, 2.0), 7.5),
        ((15.0,), 19.25),
        ((60.0, *([2.0] * STARTS)), 3.0),
    ],
)
def test_what_is_usual_and_a_bit(starts: tuple[float, ...], lead_s: float) -> None:
    assert learnt(*starts).lead_s("d", most_s=60.0) == pytest.approx(lead_s)


def test_never_more_than_allowed() -> None:
    assert learnt(15.0).lead_s("d", most_s=10.0) == 10.0
    assert learnt(2.0).lead_s("d", most_s=0.0) == 0.0


def test_runs_due_at_one_time_share_the_processors() -> None:
    leads = learnt(2.0, processors=2)
    assert [leads.lead_s("d", most_s=60.0, together=count) for count in (0, 1, 2, 3, 4)] == [3.0, 3.0, 3.0, 4.5, 6.0]


def test_what_is_remembered_is_bounded() -> None:
    leads = learnt(2.0)
    for number in range(DEPLOYMENTS):
        leads.learn(str(number), 4.0)
    assert leads.lead_s("d", most_s=60.0) == 60.0, "the one not heard of for the longest time is forgotten"
    assert leads.lead_s("0", most_s=60.0) == 5.5
