"""Durations and sizes are read as systemd reads them, and what is written is read back to the same value."""

from __future__ import annotations

import math
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.units import format_duration, format_size, parse_duration, parse_size

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
    with pytest.raises(
        ValueError, match=re.escape(f"{text!r} is not a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m")
    ):
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
    written = [format_duration(value) for value in (0, 5400, 86461.5, math.inf, None)]
    assert written == ["0", "1h 30min", "1d 1min 1s 500ms", "infinity", "infinity"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "250ms"),
        (1, "1s"),
        (59.5, "59s 500ms"),
        (60, "1min"),
        (90, "1min 30s"),
        (3661, "1h 1min 1s"),
        (7200, "2h"),
        (86400, "1d"),
        (90061, "1d 1h 1min 1s"),
    ],
)
def test_durations_of_settings(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (0.44, "0.4s"),
        (9.97, "10s"),
        (59.6, "1min"),
        (185, "3min 5s"),
        (3605, "1h"),
        (7620, "2h 7min"),
        (4 * 86400 + 3700, "4d 1h"),
        (math.inf, "infinity"),
    ],
)
def test_durations_rounded_for_people(seconds: float, words: str) -> None:
    assert format_duration(seconds, units=2) == words


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


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0"),
        (1, "1"),
        (1000, "1000"),
        (1024, "1K"),
        (512 * 2**20, "512M"),
        (2 * 2**30, "2G"),
        (2**40, "1T"),
        (3 * 2**29, "1536M"),
        (None, "infinity"),
    ],
)
def test_sizes_are_written_as_systemd_reads_them(size: int | None, words: str) -> None:
    assert format_size(size) == words


def test_sizes_rounded_for_people() -> None:
    sizes = (0, 7, 1023, 1536, 50 * 2**20, 3 * 2**40, None)
    words = ["0B", "7B", "1023B", "1.5K", "50M", "3T", "infinity"]
    assert [format_size(size, rounded=True) for size in sizes] == words


def test_a_long_row_of_numbers_costs_no_time() -> None:
    """A pattern that could split the digits in more than one way would never come back from this."""
    with pytest.raises(ValueError):
        parse_duration("1 " * 5000 + "x")
