"""The journal under SIGKILL: what a save said is on disk is on disk, and of no save is there a half."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from runnerd.journal.journal import Journal
from tests.kits.journal import events
from tests.kits.nouns import LogLines, log_to

WRITER = Path(__file__).with_name("journal_writer.py")


def kill_while_writing(path: Path, *, after: int) -> int:
    """Start a writer, kill it after it has said so many saves; the last attempt that it said."""
    with subprocess.Popen([sys.executable, str(WRITER), str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(after)]
        writer.kill()
        said += writer.stdout.readlines()
    return int([line for line in said if line.endswith("\n")][-1])


def test_killed_at_a_random_moment(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    chance = random.Random()
    for _ in range(6):
        promised = kill_while_writing(path, after=chance.randint(1, 60))
        journal = Journal(path=str(path), now=lambda: datetime.now(UTC), log=log_to(LogLines()))
        assert journal.moved_aside is None
        (record,) = journal.unfinished()
        assert record.attempt in (promised, promised + 1), "a save that had returned is lost"
        assert events(journal, "r-1") == [str(n) for n in range(1, record.attempt + 1)], "half a save"
        journal.close()
