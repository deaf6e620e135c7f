"""journal_file.py: cut power, and how large the file becomes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from tests.kits.journal import PAGE, ids, opened, running
from tests.kits.nouns import NOON

# --- cut power ------------------------------------------------------------------------------------------------


def copied(path: Path, to: Path, *, log: bytes) -> Path:
    shutil.copy(path, to)
    Path(f"{to}-wal").write_bytes(log)
    return to


def test_cut_power_leaves_a_beginning_of_what_was_saved(tmp_path: Path) -> None:
    """Whatever of the log has reached the disk: the journal opens, and holds the first so many of its steps."""
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    marks = []  # how long the log was when so many steps had been saved
    with opened(path) as journal:
        shutil.copy(path, tmp_path / "begun.db")
        for number in range(7):
            journal.save(running(f"r-{number:02}"), "started")
            marks.append(Path(f"{path}-wal").stat().st_size)
        log = Path(f"{path}-wal").read_bytes()
        shutil.copy(path, tmp_path / "now.db")
    assert len(log) == marks[-1], "the log was begun anew, and this test looks at half of it"
    sizes = sorted({*range(0, len(log), 7001), *(mark + off for mark in marks for off in (-1, 0, 1)), len(log)})
    for size in sizes:
        whole = sum(mark <= size for mark in marks)
        with opened(copied(tmp_path / "now.db", copy, log=log[:size])) as journal:
            assert journal.moved_aside is None, size
            assert ids(journal.unfinished()) == [f"r-{number:02}" for number in range(whole)], size
        for name in ("copy.db-wal", "copy.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("rubbish", [b"\xa5", b"\0"])
def test_a_log_that_is_rubbish_from_some_point_on(tmp_path: Path, rubbish: bytes) -> None:
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    with opened(path) as journal:
        for number in range(6):
            journal.save(running(f"r-{number:02}"), "started")
        log = Path(f"{path}-wal").read_bytes()
        shutil.copy(path, tmp_path / "now.db")
    seen = set()
    for size in range(0, len(log), 9001):
        with opened(copied(tmp_path / "now.db", copy, log=log[:size] + rubbish * (len(log) - size))) as journal:
            found = ids(journal.unfinished())
            assert (journal.moved_aside, found) == (None, [f"r-{number:02}" for number in range(len(found))])
            seen.add(len(found))
        for name in ("copy.db-wal", "copy.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
    assert len(seen) > 3


def test_cut_power_while_the_log_is_copied_into_the_file(tmp_path: Path) -> None:
    """The log is on disk before its pages are copied, so any mixture of old and new pages is mended by it."""
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    with opened(path) as journal:
        journal.save(running("r-00"), "started")
    old = path.read_bytes()
    with opened(path) as journal:
        for number in range(1, 20):
            journal.save(running(f"r-{number:02}"), "started")
        log = Path(f"{path}-wal").read_bytes()
        assert path.read_bytes() == old
    new = path.read_bytes()
    for number in range(1, len(new) // PAGE, 2):
        for mixed in (
            new[: number * PAGE] + old[number * PAGE :],
            new[: number * PAGE + 1000] + old[number * PAGE + 1000 :],
            old[: number * PAGE] + new[number * PAGE :],
        ):
            (tmp_path / "now.db").write_bytes(mixed)
            with opened(copied(tmp_path / "now.db", copy, log=log)) as journal:
                assert journal.moved_aside is None
                assert ids(journal.unfinished()) == [f"r-{number:02}" for number in range(20)]
            for name in ("copy.db-wal", "copy.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)


# --- bounds ---------------------------------------------------------------------------------------------------


def test_the_file_stops_growing(tmp_path: Path) -> None:
    """What is forgotten makes room for what comes: the file is as large as its largest history."""
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        sizes = []
        for cycle in range(6):
            for number in range(30):
                journal.save(replace(running(f"r-{cycle}-{number}"), phase=Phase.DONE), "told")
            old = journal.prunable(before=NOON.replace(year=1), max_runs=30, limit=1000)
            journal.forget(ids(old))
            journal.try_writing()  # copies the log
            sizes.append(path.stat().st_size + Path(f"{path}-wal").stat().st_size)
        assert len(journal.history()) == 30
    assert max(sizes[3:]) <= sizes[2] * 1.1, sizes
