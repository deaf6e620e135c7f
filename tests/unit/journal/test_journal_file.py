"""journal.py: a file that is none, that may not be written, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runnerd.core.errors import JournalError
from runnerd.core.machine import RunRecord
from runnerd.journal.journal import Journal
from tests.kits.nouns import NOON, LogLines, a_record, log_to


def open_at(folder: Path) -> Journal:
    return Journal(path=str(folder / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))


def ids(records: list[RunRecord]) -> list[str]:
    return [record.id for record in records]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = open_at(tmp_path)
    yield made
    made.close()


# --- the file ----------------------------------------------------------------------------------------------------


def test_only_its_owner_may_read_it(tmp_path: Path, journal: Journal) -> None:
    assert stat.S_IMODE((tmp_path / "journal.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"this was never a database, but long enough to look at", b"\0" * 4096])
def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    journal = open_at(tmp_path)
    aside = tmp_path / f"journal.db.corrupt-{NOON:%Y%m%dT%H%M%S}"
    assert journal.moved_aside == str(aside)
    assert aside.read_bytes() == content
    journal.save(a_record("r-1"), "x")
    journal.close()
    again = open_at(tmp_path)
    assert again.moved_aside is None
    assert ids(again.unfinished()) == ["r-1"]
    again.close()


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    journal = open_at(tmp_path)
    assert (journal.moved_aside, journal.unfinished()) == (None, [])
    journal.close()


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot open the journal .*missing/journal.db: unable to open"):
        open_at(tmp_path / "missing")


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = open_at(tmp_path)
    journal.close()
    with pytest.raises(JournalError, match="cannot read the journal"):
        journal.unfinished()
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.save(a_record("r-1"), "x")


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a forked child, which may bind itself to any limit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it raised"
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    closed = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match=r"cannot open the journal .*; runnerd must be able to write"):
        open_at(closed)
    tmp_path.chmod(0o700)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As a disk quota or a full disk would have it; what was there before stays readable."""

    def work() -> str:
        journal = open_at(tmp_path)
        journal.save(a_record("first"), "x")
        size = max(path.stat().st_size for path in tmp_path.iterdir())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, hard))
        try:
            for n in range(100):
                journal.save(a_record(f"r-{n}", words="w" * 3000), "x")
        except JournalError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.save(a_record("last"), "x")
        assert journal.problem is None
        found = ids(journal.unfinished())
        assert (found[0], found[-1]) == ("first", "last"), found
        return said

    assert in_child(work).startswith(f"cannot write the journal {tmp_path}/journal.db: ")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", "size=320k", "none", str(disk)) != 0:
        pytest.skip("mounting takes root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode


def test_a_full_disk_and_room_again(tiny_disk: Path) -> None:
    journal = open_at(tiny_disk)
    saved = 0
    with pytest.raises(JournalError, match="disk is full"):
        for n in range(1000):
            journal.save(a_record(f"r-{n}", words="w" * 3000), "x")
            saved += 1
    with pytest.raises(JournalError, match="disk is full"):
        journal.withdraw_claim("r-0", a_record("r-0", words="w" * 30000))
    assert len(journal.unfinished()) == saved
    assert "disk is full; make room on its disk; meanwhile no run is claimed" in (journal.problem or "")
    with pytest.raises(JournalError, match="disk is full"):
        journal.try_writing()
    assert mount("-o", "remount,size=8M", str(tiny_disk)) == 0
    journal.save(a_record("after"), "x")
    assert journal.problem is None
    assert len(journal.unfinished()) == saved + 1
    journal.close()


def test_full_without_a_disk_that_is(journal: Journal) -> None:
    """As the tests above, for those who may not mount anything."""
    journal.save(a_record("r-1"), "x")
    journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError, match="disk is full"):
        for number in range(100):
            journal.save(a_record(f"r-{number}", words="w" * 3000), "x")
    assert "disk is full; make room on its disk; meanwhile no run is claimed" in (journal.problem or "")
    journal._db.execute("PRAGMA max_page_count = 1000000")
    journal.save(a_record("after"), "claiming")
    assert journal.problem is None


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that becomes read-only by `mount -o remount,abort`, as one does that has met an error."""
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    image.write_bytes(b"\0" * 16 * 2**20)
    make = ["mkfs.ext4", "-q", str(image)]
    if os.geteuid() != 0 or shutil.which(make[0]) is None or subprocess.run(make, check=False).returncode != 0:
        pytest.skip("a file system in a file takes root and mkfs.ext4")
    if mount("-o", "loop", str(image), str(disk)) != 0:
        pytest.skip("there are no loop devices")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_becomes_read_only(failing_disk: Path) -> None:
    with contextlib.closing(open_at(failing_disk)) as journal:
        journal.save(a_record("r-1"), "x")
        assert mount("-o", "remount,abort", str(failing_disk)) == 0
        with pytest.raises(JournalError, match="cannot write the journal"):
            journal.save(a_record("r-2"), "x")
        assert "check with dmesg whether its disk is read-only or failing" in (journal.problem or "")
        with pytest.raises(JournalError):
            journal.try_writing()
        assert ids(journal.unfinished()) == ["r-1"]


def test_a_full_disk_at_the_start(tiny_disk: Path) -> None:
    with contextlib.closing(open_at(tiny_disk)) as journal:
        journal.save(a_record("r-1"), "x")
    filler = tiny_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    with pytest.raises(JournalError, match=r"cannot open the journal .*; make room on its disk"):
        open_at(tiny_disk)
    filler.unlink()
    with contextlib.closing(open_at(tiny_disk)) as journal:
        assert (journal.moved_aside, ids(journal.unfinished())) == (None, ["r-1"])
