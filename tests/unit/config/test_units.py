"""Units read as systemd reads them, and what is written is read back to the same value."""

from __future__ import annotations

import re
import signal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runnerd.config.schema import SchemaCheck
from runnerd.config.units import (
    RLIMITS,
    UNLIMITED,
    format_percent,
    format_signal,
    parse_percent,
    parse_rate,
    parse_rlimit,
    parse_signal,
)
from runnerd.core.units import parse_duration, parse_size


@given(st.integers(0, 10**12))
def test_percentages_survive_being_written(millionths: int) -> None:
    assert parse_percent(format_percent(millionths / 1e6)) == millionths / 1e6


@pytest.mark.parametrize("text", ["150", "%", "-5%", "1e3%", "x%"])
def test_what_is_no_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="is not a percentage such as 150%"):
        parse_percent(text)


def test_rates() -> None:
    assert [parse_rate(text) for text in ("10/s", "30/m", "30 / min", "36/h", 2, 0.5)] == [10, 0.5, 0.5, 0.01, 2, 0.5]
    with pytest.raises(ValueError, match="'10/d' is not a rate such as 10/s or 30/m"):
        parse_rate("10/d")


@pytest.mark.parametrize(
    ("name", "text", "limits"),
    [
        ("nofile", "1024", (1024, 1024)),
        ("nofile", 1024, (1024, 1024)),
        ("nofile", "1024:4096", (1024, 4096)),
        ("nproc", "5:infinity", (5, UNLIMITED)),
        ("core", "0", (0, 0)),
        ("as", "4G:16G", (4 * 2**30, 16 * 2**30)),
        ("memlock", "64K:infinity", (65536, UNLIMITED)),
        ("cpu", "1.5s:1m", (2, 60)),
        ("cpu", "infinity", (UNLIMITED, UNLIMITED)),
    ],
)
def test_resource_limits(name: str, text: str | int, limits: tuple[int, int]) -> None:
    assert parse_rlimit(name, text) == limits


@pytest.mark.parametrize("name", RLIMITS)
@pytest.mark.parametrize("text", ["", "2:1", "infinity:1", "1:2:3", "x", "-1", ":", "1:"])
def test_what_is_no_resource_limit(name: str, text: str) -> None:
    with pytest.raises(ValueError):
        parse_rlimit(name, text)


def test_signals() -> None:
    assert [parse_signal(value) for value in ("SIGTERM", "TERM", "INT", 15, "9", "SIGKILL")] == [15, 15, 2, 15, 9, 9]


@pytest.mark.parametrize("number", sorted(int(s) for s in signal.valid_signals() if s != signal.SIGSTOP))
def test_signals_survive_being_written(number: int) -> None:
    assert parse_signal(format_signal(number)) == number


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("sigterm", "there is no signal 'sigterm'; did you mean 'SIGTERM'?"),
        ("SIGTREM", "there is no signal 'SIGTREM'; did you mean 'SIGTERM'?"),
        ("nothing", "there is no signal 'nothing'"),
        ("0", "there is no signal 0"),
        (200, "there is no signal 200"),
        ("STOP", "SIGSTOP does not end a process; use SIGTERM or SIGINT"),
    ],
)
def test_what_is_no_signal(value: str | int, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        parse_signal(value)


# The schema's patterns serve editors; they must not call wrong what is right, nor the other way round.

spelt_durations = st.lists(
    st.sampled_from(["1", "30", ".5", "1.5", " ", "h", "min", "ms", "us", "y", "M", "infinity", "+", "-", "x", "5."]),
    max_size=6,
).map("".join)


@given(spelt_durations | st.text(max_size=5))
@example("1113030y")
def test_the_schema_and_the_parser_agree_on_durations(text: str) -> None:
    if parses(parse_duration, text):
        assert accepts("runtime_max", text)
    elif accepts("runtime_max", text):  # what no pattern can see: more than 580,000 years
        with pytest.raises(ValueError, match="is too long for a duration"):
            parse_duration(text)


@given(st.from_regex(r"\A[0-9]{1,3}(\.[0-9])?[BKMGTPEx]?\Z") | st.just("infinity") | st.text(max_size=4))
def test_the_schema_and_the_parser_agree_on_sizes(text: str) -> None:
    if parses(parse_size, text):
        assert accepts("memory_max", text)
    elif accepts("memory_max", text):  # what no pattern can see
        with pytest.raises(ValueError, match=r"whole number of bytes|too large"):
            parse_size(text)


@given(st.from_regex(r"\A(infinity|[0-9]{1,2})(:(infinity|[0-9]{1,2}))?\Z") | st.text(max_size=4))
def test_the_schema_and_the_parser_agree_on_limits(text: str) -> None:
    if parses(lambda value: parse_rlimit("nofile", value), text):
        assert accepts("limit_nofile", text)


def test_a_long_row_of_digits_costs_no_time() -> None:
    """A pattern that could split the digits in more than one way would never come back from this."""
    assert not accepts("runtime_max", "1" * 5000 + "x")


CHECK = SchemaCheck()


def accepts(key: str, text: str) -> bool:
    return not CHECK.check_item("deployments", {"name": "a", "entrypoint": "a:b", "run": {key: text}})


def parses(parser: object, text: str) -> bool:
    try:
        parser(text)  # type: ignore[operator]
    except ValueError:
        return False
    return True
