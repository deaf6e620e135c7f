"""What runnerctl makes of values."""

import json
from datetime import UTC, datetime

import pytest

from runnerd.cli.console import Cell, Column, Console
from runnerd.cli.parameters import parse_parameters
from runnerd.cli.tables import print_runs
from runnerd.cli.text import (
    clean,
    format_api_state,
    format_local,
    format_phase,
    format_relative,
    format_running,
    format_state,
    format_verdict,
    seconds_taken,
    shorten_ids,
)
from runnerd.control.client import quote, target
from tests.kits.fakes.fake_documents import a_run, ended
from tests.kits.nouns import Json

NOON = datetime(2026, 8, 20, 12, tzinfo=UTC).timestamp()


def test_times_from_here() -> None:
    assert format_relative("2026-08-20T11:58:55+00:00", NOON) == "1min 5s ago"
    assert format_relative("2026-08-20T13:30:00+00:00", NOON, units=1) == "in 1h"
    assert format_relative("2026-08-20T12:00:00Z", NOON) == "now"


def test_ids() -> None:
    ids = ["aaaa1111-1", "aaaa1111-2", "bbbb"]
    assert shorten_ids(ids) == {"aaaa1111-1": "aaaa1111-1", "aaaa1111-2": "aaaa1111-2", "bbbb": "bbbb"}
    assert shorten_ids(["aaaa1111-1", "bbbb2222-2"]) == {"aaaa1111-1": "aaaa1111", "bbbb2222-2": "bbbb2222"}
    assert shorten_ids([]) == {}


def test_states_in_words() -> None:
    assert format_api_state(a_run("x")) == "Running"
    assert format_api_state(a_run("x", api_state="FAILED", api_state_name="TimedOut")) == "Failed (TimedOut)"
    assert format_api_state(a_run("x", api_state=None, api_state_name=None)) == ""
    assert format_phase(a_run("x", phase="stopping", intent="cancel")) == "stopping (cancel)"
    assert format_phase(a_run("x", phase="stopping", intent="evict")) == "stopping (host stops)"
    assert format_state(a_run("x", api_state=None, api_state_name=None)) == "Running"
    assert format_state(a_run("x", phase="claiming", api_state=None, api_state_name=None)) == "-"
    assert format_phase(a_run("x", phase=None)) == "waiting"
    assert format_phase(a_run("x", intent="cancel", **ended())) == "done"


def test_a_run_that_is_held_waits() -> None:
    held = a_run("x", held=True, due_at="2026-08-20T10:00:12Z", api_state=None, api_state_name=None)
    assert (format_phase(held), format_state(held)) == ("waiting until due", "Pending")
    assert seconds_taken(held, NOON) is None
    assert format_phase(held | {"intent": "cancel"}) == "running (cancel)"
    assert format_phase(held | {"held": False}) == "running"


@pytest.mark.parametrize(
    ("its", "words"),
    [
        ({"running": 2, "limit": None}, "2"),
        ({"running": 2, "limit": 4}, "2/4"),
        ({"running": 2, "limit": 4, "held": 0}, "2/4"),
        ({"running": 2, "limit": 4, "held": 2}, "0/4 (+2 held)"),
        ({"running": 2, "limit": None, "held": 1}, "1 (+1 held)"),
    ],
)
def test_a_run_that_is_held_does_not_count_as_running(its: Json, words: str) -> None:
    assert format_running(its) == words


def test_verdicts_in_words() -> None:
    crashed = ended(
        api_state="CRASHED",
        api_state_name="Crashed",
        exit={"code": None, "signal": 9, "oom": True, "words": "killed: out of memory (memory_max 2G)"},
    )
    assert format_verdict(a_run("x", **ended()), NOON) == "Completed after 12s"
    assert format_verdict(a_run("x", **crashed), NOON) == "Crashed after 12s: killed: out of memory (memory_max 2G)"
    gone = ended(api_state=None, api_state_name=None, started_at=None, exit=None)
    assert format_verdict(a_run("x", **gone), NOON) == "Gone from the API"
    failed = ended(api_state="FAILED", api_state_name="Failed")
    words = "Failed after 12s: the flow failed, and its process exited 0"
    assert format_verdict(a_run("x", **failed), NOON) == words
    said = failed | {"api_state_message": "Flow run encountered an exception: ValueError: no such region"}
    words = "Failed after 12s: Flow run encountered an exception: ValueError: no such region"
    assert format_verdict(a_run("x", **said), NOON) == words
    lost = gone | {"exit": {"words": "the run is Running already"}}
    assert format_verdict(a_run("x", **lost), NOON) == "Not started here: the run is Running already"


def test_nothing_reaches_a_terminal_that_it_might_obey() -> None:
    assert clean("a\x1b[31mb\nc\u202ed\udc80e\u00e9") == "a?[31mb?c?d?e\u00e9"
    assert clean("\x85\x9b31m\x7f\u2066\u2028\U000e0001") == "??31m????"


HOSTILE = "a\x1b[31m\x85\x9b31m\x7f\u061c\u202e\u2066\u2028\u200f\ufeff\U000e0001\udc80\u00e9\u4e2d\U0001f600\n"


def test_json_says_the_same_in_characters_that_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True, width=None, colour=False).print_document({HOSTILE: [HOSTILE]})
    out = capsys.readouterr().out
    assert json.loads(out) == {HOSTILE: [HOSTILE]}
    assert all(line.isprintable() for line in out.splitlines())
    assert (
        "\\u0085\\u009b31m\\u007f\\u061c\\u202e\\u2066\\u2028\\u200f\\ufeff\\udb40\\udc01\\udc80\u00e9\u4e2d\U0001f600"
        in out
    )
    assert out.count("\n") == 5


@pytest.mark.parametrize("colour", [True, False])
def test_a_line_has_no_control_character_but_its_own_colours(capsys: pytest.CaptureFixture[str], colour: bool) -> None:
    console = Console(json=False, width=None, colour=colour)
    console.print_line(console.paint("red", "red") + " \x1b[2J\x9b2J\u202e \x1b[31m")
    expected = "\x1b[31mred\x1b[0m ?[2J?2J? \x1b[31m\n" if colour else "red ?[2J?2J? ?[31m\n"
    assert capsys.readouterr().out == expected


def test_times_at_the_ends_of_time() -> None:
    for stamp in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00", "9999-12-31"):
        assert format_relative(stamp, NOON).isprintable()
        assert format_local(stamp).isprintable()


def test_a_table_is_aligned_and_its_last_column_not_padded(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=False, width=None, colour=False)
    columns = (Column("NAME", flexible=True), Column("COUNT", right=True), Column("LAST"))
    console.print_table(columns, [("a", "1", "x"), ("b" * 20, Cell("20", "red"), "")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME                  COUNT  LAST",
        "a                         1  x",
        "bbbbbbbbbbbbbbbbbbbb     20",
    ]


def test_what_a_start_waits_for_is_said_below_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=False, width=None, colour=False)
    print_runs(console, [a_run("aaaa", waiting="env:\x1b did not answer"), a_run("bbbb")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["RUN", "aaaa", "bbbb"]
    assert lines[3:] == ["aaaa waits for: env:? did not answer"]


def test_parameters() -> None:
    given = ["a=1", "b=true", "c=null", 'd="x=y"', "e=x=y", "f=NaN", "g=-", "h= 5"]
    wanted = {"a": 1, "b": True, "c": None, "d": "x=y", "e": "x=y", "f": "NaN", "g": "-", "h": 5}
    assert parse_parameters(given) == wanted


def test_request_targets() -> None:
    assert quote("etl/na me?ü") == "etl%2Fna%20me%3F%C3%BC"
    assert target("/v1/runs", {}) == "/v1/runs"
    assert target("/v1/runs", {"state": "a&b", "x": "1"}) == "/v1/runs?state=a%26b&x=1"


def test_the_next_run_is_never_in_the_past() -> None:
    console = Console(json=False, width=80, colour=False)
    console.now = NOON
    assert console.when_next("2026-08-20T11:00:00+00:00") == "due"
    assert console.when_next("2026-08-20T13:00:00+00:00") == "in 1h"
    assert console.when_next(None) == "-"
