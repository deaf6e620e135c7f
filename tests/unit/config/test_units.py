"""Units read as systemd reads them, and what is written is read back to the same value."""

from __future__ import annotations

import math
import re
import shutil
import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.config.schema import SchemaCheck
from runnerd.config.units import (
    RLIMITS,
    UNLIMITED,
    format_duration,
    format_percent,
    format_signal,
    format_size,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_rlimit,
    parse_signal,
    parse_size,
)

# systemd.time(7) and what `systemd-analyze timespan` of systemd 252 answers.
DURATIONS = {
    "90": 90,
    "2 h": 7200,
    "2hours": 7200,
    "48hr": 172800,
    "1y 12month": 31557600 + 12 * 2629800,
    "55s500ms": 55.5,
    "300ms20s 5day": 432020.3,
    "1h 30m": 5400,
    "1h30": 3630,
    "1d2": 86402,
    "3 5": 8,
    "1.5h": 5400,
    ".5s": 0.5,
    "+5": 5,
    " 10s ": 10,
    "1 M": 2629800,
    "1m": 60,
    "1w": 604800,
    "500us": 0.0005,
    "5µs": 0.000005,
    "0": 0,
    "0.0000001s": 0,
    "infinity": math.inf,
    " infinity ": math.inf,
}
NO_DURATIONS = ["", " ", "-1", "x", "5.", "5.s", "1.5.2s", "1S", "1Min", "Infinity", "infinity 5s", "1_000", "0x10"]
NO_DURATIONS += ["5ns", "1h30x", "5 parsecs", "٣", "1,5s"]


@pytest.mark.parametrize("text", DURATIONS)
def test_durations_systemd_reads(text: str) -> None:
    assert parse_duration(text) == DURATIONS[text]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_durations_systemd_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a duration such as 10s, 5m, 2h or 1h 30m")):
        parse_duration(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here to compare with")
@pytest.mark.parametrize("text", [*DURATIONS, *NO_DURATIONS])
def test_durations_are_what_this_hosts_systemd_says(text: str) -> None:
    answer = subprocess.run(["systemd-analyze", "timespan", "--", text], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        with pytest.raises(ValueError):
            parse_duration(text)
        return
    found = re.search(r"s: (\d+)", answer.stdout)
    assert found is not None
    microseconds = int(found[1])
    assert parse_duration(text) == (math.inf if microseconds == 2**64 - 1 else microseconds / 1e6)


@pytest.mark.parametrize("value", ["600000y", "9" * 30, "9" * 30 + "y"])
def test_durations_longer_than_systemd_counts(value: str) -> None:
    with pytest.raises(ValueError, match="too long for a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    "value", [-1, math.inf, math.nan, 1e300, 10**400], ids=["negative", "infinite", "no number", "huge", "very long"]
)
def test_numbers_that_are_no_duration(value: float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@given(st.integers(0, 2**53))
def test_durations_survive_being_written(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds / 1e6)) == microseconds / 1e6


def test_durations_are_written_as_systemd_writes_them() -> None:
    assert [format_duration(value) for value in (0, 5400, 86461.5, math.inf)] == [
        "0",
        "1h 30min",
        "1d 1min 1s 500ms",
        "infinity",
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 * 2**20),
        ("2G", 2**31),
        ("1.5K", 1536),
        ("7", 7),
        ("7B", 7),
        ("1E", 2**60),
        ("infinity", None),
        (9, 9),
    ],
)
def test_sizes(text: str | int, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "2GB", "2g", "G", "1.5", "0.5B", "1 G 5", "50%", "9" * 30, "99E"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_size(text)


@given(st.integers(0, 2**63 - 1) | st.none())
def test_sizes_survive_being_written(size: int | None) -> None:
    assert parse_size(format_size(size)) == size


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
        ("STOP", "SIGSTOP does not end a process; use SIGTERM, SIGINT or another one that does"),
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
def test_the_schema_and_the_parser_agree_on_durations(text: str) -> None:
    assert accepts("runtime_max", text) == parses(parse_duration, text)


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
    with pytest.raises(ValueError):
        parse_duration("1 " * 5000 + "x")


CHECK = SchemaCheck()


def accepts(key: str, text: str) -> bool:
    return not CHECK.item("deployments", {"name": "a", "entrypoint": "a:b", "run": {key: text}})


def parses(parser: object, text: str) -> bool:
    try:
        parser(text)  # type: ignore[operator]
    except ValueError:
        return False
    return True
