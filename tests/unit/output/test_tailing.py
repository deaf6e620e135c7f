"""tailing.py: every line of an output file becomes one entry, in order; lines left out are counted."""

from __future__ import annotations

import ctypes
import random
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Phase, RunRecord
from runnerd.output.tailing import LINE_MAX_BYTES, BlockOutcome, RateLimit, Tail, forward, journal_fields, make_tail
from tests.kits.fakes.fake_journald import Entry, parse
from tests.kits.nouns import a_record

PLENTY = 10**9


class Bench:
    """A file, its tail, and what was sent of it. Time stands still unless it is moved."""

    def __init__(self, path: Path, *, run_lines: int = PLENTY, host_lines: int = PLENTY) -> None:
        self.path = path
        self.tail = Tail(run="r-1", attempt=1, path=str(path), name="otter", deployment="nightly", flow="etl")
        self.sent: list[Entry] = []
        self.takes = PLENTY  # how many entries journald still takes
        self.at = 0.0
        self.limits = tuple(
            RateLimit(lines=lines, window_s=10.0, clock=lambda: self.at) for lines in (run_lines, host_lines)
        )

    def write(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)

    def send(self, entry: bytes) -> bool:
        if self.takes <= 0:
            return False
        self.takes -= 1
        self.sent.append(parse(entry))
        return True

    def step(self, *, over: bool = False) -> BlockOutcome:
        self.tail, outcome = forward(self.tail, over=over, limits=self.limits, send=self.send)
        return outcome

    def all(self, *, over: bool = False) -> list[bytes]:
        """Everything until the end of the file."""
        while self.step(over=over) is BlockOutcome.MOVED:
            continue
        return self.lines()

    def lines(self) -> list[bytes]:
        return [entry["MESSAGE"] for entry in self.sent]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "r-1.1.log")


def test_an_entry_says_whose_line_it_is(bench: Bench) -> None:
    bench.write(b"hello\n")
    bench.all()
    assert bench.sent == [
        {
            "MESSAGE": b"hello",
            "PRIORITY": b"6",
            "SYSLOG_IDENTIFIER": b"nightly",
            "RUNNERD_RUN_ID": b"r-1",
            "RUNNERD_RUN_NAME": b"otter",
            "RUNNERD_DEPLOYMENT": b"nightly",
            "RUNNERD_FLOW": b"etl",
            "RUNNERD_ATTEMPT": b"1",
        }
    ]


def test_half_a_line_waits_for_its_end(bench: Bench) -> None:
    bench.write(b"one\ntw")
    assert bench.all() == [b"one"]
    bench.write(b"o\nthree")
    assert bench.all() == [b"one", b"two"]
    assert bench.all(over=True) == [b"one", b"two", b"three"]
    assert bench.all(over=True) == [b"one", b"two", b"three"]
    bench.write(b" and hooks\n")
    assert bench.all(over=True) == [b"one", b"two", b"three", b" and hooks"]


def test_empty_lines_and_white_space_at_ends_are_no_news(bench: Bench) -> None:
    bench.write(b"\n\n  indented \t\r\n   \n\nnext\r\n")
    assert bench.all() == [b"  indented", b"next"]


def test_bytes_that_are_no_text_pass(bench: Bench) -> None:
    bench.write(b"\xff\xfe \0 \x1b[31m\n")
    assert bench.all() == [b"\xff\xfe \0 \x1b[31m"]


def test_a_line_cannot_forge_a_field(bench: Bench) -> None:
    bench.write(b"PRIORITY=0\x0bMESSAGE_ID=1\rx\n")
    bench.all()
    assert bench.lines() == [b"PRIORITY=0\x0bMESSAGE_ID=1\rx"]
    assert bench.sent[0]["PRIORITY"] == b"6"


@pytest.mark.parametrize("over", [True, False])
def test_blocks_do_not_show(bench: Bench, over: bool) -> None:
    """Several blocks of lines of all lengths, cut anywhere."""
    chance = random.Random(7)
    lines = [b"%d " % n + b"x" * chance.choice((0, 10, 80, 3000)) for n in range(3000)]
    bench.write(b"\n".join(lines) + b"\n")
    assert bench.all(over=over) == [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    "length", [LINE_MAX_BYTES - 1, LINE_MAX_BYTES, LINE_MAX_BYTES + 1, 3 * LINE_MAX_BYTES, 700_001]
)
@pytest.mark.parametrize("over", [True, False])
def test_a_very_long_line_comes_in_pieces(bench: Bench, length: int, over: bool) -> None:
    bench.write(b"before\n" + b"x" * length + b"\nafter\n")
    bench.all(over=over)
    first, *pieces, last = bench.lines()
    assert (first, b"".join(pieces), last) == (b"before", b"x" * length, b"after")
    assert len(pieces) == -(-length // LINE_MAX_BYTES)
    assert max(map(len, pieces)) <= LINE_MAX_BYTES


@pytest.mark.parametrize("shift", [b"", b"a", b"ab", b"abc"])
def test_no_character_is_cut_in_two(bench: Bench, shift: bytes) -> None:
    text = "€🦦é" * 10_000
    bench.write(shift + text.encode() + b"\n")
    assert "".join(line.decode() for line in bench.all()) == shift.decode() + text


@pytest.mark.parametrize(
    ("line", "priority"),
    [
        (b"12:00:01.123 | DEBUG   | prefect - x", b"7"),
        (b"12:00:01.123 | INFO    | prefect - x", b"6"),
        (b"12:00:01.123 | WARNING | Flow run 'otter' - x", b"4"),
        (b"12:00:01.123 | ERROR   | Flow run 'otter' - x", b"3"),
        (b"12:00:01.123 | CRITICAL | Flow run 'otter' - x", b"2"),
        (b"12:00:01.123 | ERROR", b"6"),
        (b"ERROR | x", b"6"),
        (b"x 12:00:01.123 | ERROR   | x", b"6"),
    ],
)
def test_the_priority_that_a_line_gives_itself(bench: Bench, line: bytes, priority: bytes) -> None:
    bench.write(line + b"\n")
    bench.all()
    assert bench.sent[0]["PRIORITY"] == priority


@pytest.mark.parametrize(
    ("deployment", "identifier"),
    [
        ("nightly", "nightly"),
        ("load & store", "load___store"),
        ("büro", "b_ro"),
        ("x" * 100, "x" * 64),
        ("äöü", "flow"),
        ("?", "flow"),
        ("runnerd", "flow_runnerd"),
    ],
)
def test_the_tag_is_one_that_syslog_takes_and_not_ours(bench: Bench, deployment: str, identifier: str) -> None:
    fields = journal_fields(replace(bench.tail, deployment=deployment, flow="?"))
    assert fields["SYSLOG_IDENTIFIER"] == identifier
    assert fields.get("RUNNERD_DEPLOYMENT") == (None if deployment == "?" else deployment)
    assert "RUNNERD_FLOW" not in fields


def test_a_file_that_is_not_there_yet(bench: Bench) -> None:
    assert bench.step() is BlockOutcome.END
    bench.write(b"now\n")
    assert bench.all() == [b"now"]


def test_a_file_that_was_cut_is_read_from_its_beginning(bench: Bench) -> None:
    bench.write(b"one\ntwo\n")
    bench.all()
    bench.path.write_bytes(b"new\n")
    assert bench.all()[2:] == [b"new"]


def test_a_front_that_was_punched_out_is_skipped(bench: Bench) -> None:
    bench.write(b"x" * 8191 + b"\n" + b"kept\n")
    with open(bench.path, "rb+") as file:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
        if fallocate(file.fileno(), 3, ctypes.c_int64(0), ctypes.c_int64(8192)) != 0:
            pytest.skip("this file system has no holes")
    assert bench.all() == [b"kept"]


def test_what_journald_does_not_take_is_sent_later(bench: Bench) -> None:
    bench.write(b"".join(b"%d\n" % n for n in range(10)))
    bench.takes = 3
    assert bench.step() is BlockOutcome.STUCK
    assert bench.step() is BlockOutcome.STUCK
    assert bench.lines() == [b"0", b"1", b"2"]
    bench.takes = PLENTY
    assert bench.all() == [b"%d" % n for n in range(10)]


# --- bounds -----------------------------------------------------------------------------------------------------


def words(count: int, rate: str) -> bytes:
    return f"runnerd left out {count} lines here: more than {rate} a second; runnerctl logs r-1 has them".encode()


@pytest.mark.parametrize(("bounds", "rate"), [({"run_lines": 100}, "10"), ({"host_lines": 50}, "5")])
def test_a_flood_is_held_to_its_bound_and_that_is_said_once(tmp_path: Path, bounds: dict[str, int], rate: str) -> None:
    bench = Bench(tmp_path / "log", **bounds)
    (passing,) = bounds.values()
    bench.write(b"".join(b"%d\n" % n for n in range(100_000)))
    assert bench.all() == [b"%d" % n for n in range(passing)]
    bench.at = 9.9
    bench.write(b"still too many\n")
    assert len(bench.all()) == passing
    bench.at = 10.0
    bench.write(b"again\n")
    assert bench.all()[passing:] == [words(100_001 - passing, rate), b"again"]
    told = bench.sent[passing]
    assert (told["PRIORITY"], told["RUNNERD_LEFT_OUT"]) == (b"4", b"%d" % (100_001 - passing))
    assert told["RUNNERD_DEPLOYMENT"] == b"nightly"


def test_word_of_lines_left_out_waits_for_journald(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log", run_lines=1)
    bench.write(b"one\ntwo\nthree\n")
    bench.all()
    bench.at, bench.takes = 10.0, 0
    assert bench.step() is BlockOutcome.STUCK
    bench.takes = PLENTY
    assert bench.all() == [b"one", words(2, "0.1")]


def test_long_lines_count_for_as_many_as_they_are_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log", run_lines=50)
    bench.write(b"".join(b"x" * 10_000 + b"\n" for _ in range(20)))
    bench.all()
    assert len(bench.sent) == 5
    assert bench.tail.left_out == 15


def test_a_run_over_its_bound_takes_nothing_from_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log", run_lines=10, host_lines=100)
    bench.write(b"x\n" * 100_000)
    bench.all()
    assert bench.limits[1].left() == 90


# --- records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "begins"),
    [
        (a_record("r", phase=Phase.RUNNING, output="/o/r.1.log"), True),
        (a_record("r", phase=Phase.REPORTING, output="/o/r.1.log"), True),
        (a_record("r", phase=Phase.CLAIMING), False),
        (a_record("r", phase=Phase.STARTING, output="/o/r.1.log"), False),
        (a_record("r", phase=Phase.RUNNING, output=None), False),
        (a_record("r", phase=Phase.DONE, output="/o/r.1.log"), False),
        (a_record("r", phase=Phase.REPORTING, attempt=2, output="/o/r.1.log"), False),  # it could not be started
    ],
)
def test_which_records_have_output_of_their_own(record: RunRecord, begins: bool) -> None:
    tail = make_tail(record)
    assert (tail is not None) == begins
    if tail is not None:
        assert (tail.key, tail.path, tail.name) == (("r", 1), record.output, record.name)
