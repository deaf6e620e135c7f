"""Output becomes batches of lines: each line once, in order, bounded, and readable whatever its bytes are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runnerd.output.api_batches import (
    BATCH_MAX_LINES,
    RUN_MAX_BYTES,
    TAIL_BYTES,
    Batch,
    commit,
    take_batch,
)
from runnerd.output.api_lines import LINE_MAX_BYTES, cut_lines, make_readable
from runnerd.output.api_progress import Pending, Progress, load_progress, save_progress
from runnerd.prefect_api.logs import INFO, STEP, WARNING

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def take(path: Path, progress: Progress, *, over: bool = False, now: datetime = NOON) -> Batch | None:
    return take_batch(str(path), progress, over=over, now=now, advice="see there")


def take_all(path: Path, progress: Progress | None = None, *, over: bool = True) -> Iterator[Batch]:
    progress = progress or Progress()
    while (batch := take(path, progress, over=over)) is not None:
        yield batch
        progress = batch.after


def texts(path: Path, progress: Progress | None = None, *, over: bool = True) -> list[str]:
    return [line.text for batch in take_all(path, progress, over=over) for line in batch.lines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.1.log"


# --- lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\ttext \xc3\xa9", "plain\ttext é"),
        (b"windows\r", "windows"),
        (b"10%\r20%", "10%\\r20%"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"\xff\xfe\x00", "\\xff\\xfe\\x00"),
        ("\u202etxt.exe\u2028".encode(), "\\u202etxt.exe\\u2028"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (b"", ""),
    ],
)
def test_any_bytes_are_readable(raw: bytes, text: str) -> None:
    assert make_readable(raw) == text


def test_a_line_without_its_newline_is_waited_for() -> None:
    assert list(cut_lines(b"a\nb", is_last=False)) == [("a", 2)]
    assert list(cut_lines(b"a\nb", is_last=True)) == [("a", 2), ("b", 3)]


def test_a_long_line_comes_in_pieces_and_no_character_is_cut() -> None:
    raw = b"x" * (LINE_MAX_BYTES - 1) + "é".encode() + b"y\n"
    assert [text for text, _ in cut_lines(raw, is_last=False)] == ["x" * (LINE_MAX_BYTES - 1), "éy"]
    assert [text for text, _ in cut_lines(b"\x80" * (LINE_MAX_BYTES + 4), is_last=True)] == [
        "\\x80" * LINE_MAX_BYTES, "\\x80" * 4
    ]  # fmt: skip


# --- batches ------------------------------------------------------------------------------------------------


def test_nothing_comes_of_a_file_that_is_missing_or_empty(path: Path) -> None:
    assert texts(path) == []
    path.write_bytes(b"")
    assert texts(path) == []


def test_lines_come_once_and_have_their_own_times(path: Path) -> None:
    path.write_text("".join(f"{number}\n" for number in range(3 * BATCH_MAX_LINES + 1)))
    batches = list(take_all(path))
    assert [len(batch.lines) for batch in batches] == [BATCH_MAX_LINES] * 3 + [1]
    assert [line.text for batch in batches for line in batch.lines] == [str(n) for n in range(3 * BATCH_MAX_LINES + 1)]
    firsts = [batch.first for batch in batches]
    assert firsts == [NOON + index * BATCH_MAX_LINES * STEP for index in range(4)], "though the clock stands still"
    assert batches[-1].after.sent_lines == 3 * BATCH_MAX_LINES + 1


def test_a_clock_that_is_set_back_changes_no_order(path: Path) -> None:
    path.write_text("a\n")
    progress = Progress(last=NOON)
    batch = take(path, progress, now=NOON - timedelta(days=1))
    assert batch is not None and batch.first == NOON + STEP


def test_a_last_line_without_a_newline_comes_at_the_end(path: Path) -> None:
    path.write_text("a\nb")
    (batch,) = take_all(path, over=False)
    assert [line.text for line in batch.lines] == ["a"]
    assert texts(path, batch.after) == ["b"]


def test_an_unconfirmed_batch_is_taken_again_as_it_was(path: Path) -> None:
    path.write_text("a\nb\n")
    first = take(path, Progress())
    assert first is not None
    with open(path, "a") as file:
        file.write("c\n")
    again = take(path, first.progress, over=True, now=NOON + timedelta(hours=1))
    assert again is not None
    assert (again.lines, again.first, again.after) == (first.lines, first.first, first.after)
    assert texts(path, commit(first.progress)) == ["c"]
    assert commit(first.progress) == first.after


def test_a_batch_whose_output_is_gone_is_not_waited_for(path: Path) -> None:
    progress = Progress(pending=Pending(to=4, first=NOON, lines=2))
    assert take(path, progress) is None
    assert take(path, progress, over=True) is None


def test_binary_output_makes_small_batches(path: Path) -> None:
    path.write_bytes((b"\xff" * 1000 + b"\n") * 300)
    sizes = [sum(len(line.text) for line in batch.lines) for batch in take_all(path)]
    assert max(sizes) < 140_000
    assert sum(sizes) == 4 * 1000 * 300


def test_beyond_the_bound_only_the_end_follows_and_the_gap_is_named(path: Path) -> None:
    line = b"x" * 99 + b"\n"
    lines = 2 * RUN_MAX_BYTES // len(line)
    with open(path, "wb") as file:
        file.writelines(b"%099d\n" % number for number in range(lines))
    while_it_runs = list(take_all(path, over=False))
    sent = while_it_runs[-1].after
    assert RUN_MAX_BYTES <= sent.offset <= RUN_MAX_BYTES + 256 * 1024 or sent.sent_lines >= 20_000
    last = list(take_all(path, sent))
    notice, *tail = [line for batch in last for line in batch.lines]
    assert notice.level == WARNING and {one.level for one in tail} == {INFO}
    numbers = [int(one.text) for one in tail]
    assert numbers == list(range(numbers[0], lines)), "whole lines up to the last one"
    assert TAIL_BYTES - 200 < 100 * len(numbers) <= TAIL_BYTES
    left_out = 100 * numbers[0] - sent.offset
    assert notice.text == f"runnerd left out {left_out} bytes of output here; see there"


def test_a_short_rest_beyond_the_bound_is_sent_whole(path: Path) -> None:
    path.write_text("a\nb\nc\n")
    assert texts(path, Progress(offset=2, sent_bytes=RUN_MAX_BYTES)) == ["b", "c"]


def test_a_gigabyte_in_one_line_is_read_in_parts(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**30)  # a hole: what was punched out to bound the file
        file.seek(0, os.SEEK_END)
        file.write(b"end\n")
    assert texts(path) == ["runnerd left out 1073741824 bytes of output here; see there", "end"]


def test_nul_bytes_that_were_written_are_no_hole(path: Path) -> None:
    path.write_bytes(b"\0\0a\n")
    assert texts(path) == ["\\x00\\x00a"]


def test_only_a_hole_is_named_in_the_end(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**20)
    assert take(path, Progress()) is None
    assert texts(path) == ["runnerd left out 1048576 bytes of output here; see there"]


def test_a_truncated_file_is_read_from_its_beginning(path: Path) -> None:
    path.write_text("a\n")
    assert texts(path, Progress(offset=100)) == ["a"]


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "p")
    whole = Progress(offset=5, sent_lines=2, last=NOON, pending=Pending(to=9, first=NOON, lines=1))
    save_progress(path, whole)
    assert load_progress(path) == whole
    save_progress(path, replace(whole, pending=None))
    assert load_progress(path).pending is None
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"offset": {}, "last": "never"}', '{"pending": 5}'])
def test_what_is_no_progress_is_the_beginning(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_text(text)
    assert load_progress(str(tmp_path / "p")) == Progress()
