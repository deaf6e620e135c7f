"""containment.py: what one item of a loop makes go wrong ends there, and is logged once."""

from __future__ import annotations

import pytest

from runnerd.core.errors import ApiAway, JournalError
from runnerd.system.containment import Containment
from tests.kits.nouns import LogLines, log_to


def contained(lines: LogLines) -> Containment:
    return Containment(log=log_to(lines), loop="poll")


def test_the_others_go_on_and_the_log_says_it_once() -> None:
    lines, done = LogLines(), []
    loop = contained(lines)
    for _round in range(3):
        for number in range(3):
            with loop.item(f"run {number}") as item:
                assert 1 / (number - 1)
                done.append(number)
            assert (item.why is None) is (number != 1)
    assert done == [0, 2] * 3
    (line,) = lines.all()
    assert (line["loop"], line["item"], line["level"]) == ("poll", "run 1", "error")
    assert "ZeroDivisionError: division by zero" in line["exception"]
    assert loop.count == 3


def test_an_item_that_recovered_or_goes_wrong_otherwise_is_logged_again() -> None:
    lines = LogLines()
    loop = contained(lines)
    for kind in (ValueError, ValueError, TypeError, None, ValueError):
        with loop.item("run 1"):
            if kind is not None:
                raise kind("odd")
    assert len(lines.all()) == 3


@pytest.mark.parametrize("passing", [ApiAway("away"), JournalError("full")])
def test_what_the_loop_acts_on_itself_passes(passing: Exception) -> None:
    lines = LogLines()
    loop = Containment(log=log_to(lines), loop="register", passing=(ApiAway, JournalError))
    with pytest.raises(type(passing)), loop.item("a round"):
        raise passing
    assert lines.all() == []


def test_ten_thousand_odd_items_do_not_fill_the_memory() -> None:
    loop = contained(LogLines())
    for number in range(10_000):
        with loop.item(f"run {number}"):
            raise ValueError
    assert len(loop._logged) == 1000
