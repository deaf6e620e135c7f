"""attempts.py: the output files of a run's attempts."""

from dataclasses import replace
from pathlib import Path

from runnerd.core.machine import Phase
from runnerd.output.attempts import attempt_paths, find_outputs, latest_path, path_of_attempt
from tests.kits.nouns import a_record


def test_until_it_starts_an_attempt_has_no_output_and_those_before_keep_theirs() -> None:
    before = a_record("r", phase=Phase.RUNNING, attempt=2, output="/out/r.2.log")
    assert latest_path(before) == "/out/r.2.log"
    claimed = replace(before, phase=Phase.CLAIMING, attempt=3)
    assert latest_path(claimed) is None
    assert latest_path(replace(claimed, phase=Phase.STARTING, output="/out/r.3.log")) == "/out/r.3.log"
    assert attempt_paths(claimed) == {1: "/out/r.1.log", 2: "/out/r.2.log", 3: "/out/r.3.log"}
    assert latest_path(replace(claimed, phase=Phase.DONE)) == "/out/r.2.log", "cancelled before it started"


def test_a_run_that_never_started_has_none() -> None:
    fresh = a_record("r", phase=Phase.CLAIMING, output=None)
    assert (latest_path(fresh), path_of_attempt(fresh, 1), attempt_paths(fresh)) == (None, None, {})


def test_only_the_newest_of_very_many_are_sought() -> None:
    assert list(attempt_paths(a_record("r", attempt=5000, output="/out/r.5000.log"))) == list(range(4901, 5001))


def test_outputs_that_exist_and_whether_they_were_cut(tmp_path: Path) -> None:
    whole, cut, empty, odd = (tmp_path / f"r.{number}.log" for number in (1, 2, 3, 5))
    whole.write_bytes(b"hello")
    with cut.open("wb") as file:
        file.truncate(8192)
        file.seek(0, 2)
        file.write(b"end")
    empty.touch()
    odd.symlink_to("/etc/passwd")
    found = find_outputs({number: str(tmp_path / f"r.{number}.log") for number in range(1, 6)})
    assert found == [(1, 5, False), (2, 3, True), (3, 0, False), (5, 0, False)]
