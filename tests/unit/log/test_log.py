"""log.py: one line an event, whatever is in it, for people, for journald and for machines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping

import pytest

from runnerd.core.machine import Phase
from runnerd.core.place import Place
from runnerd.log.alerts import Alert
from runnerd.log.log import LogFormat, about, make_log
from tests.kits.nouns import a_record

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(
    level: str = "info",
    event: str = "run",
    *,
    log_format: LogFormat = "auto",
    journald: bool = False,
    debug: bool = False,
    stream: io.StringIO | None = None,
    **fields: object,
) -> str:
    stream = stream or io.StringIO()
    log = make_log(log_format=log_format, journald=journald, stream=stream, debug=debug)
    getattr(log, level)(event, **fields)
    return stream.getvalue()


def test_a_line_for_people() -> None:
    line = said(run="r-1", phase="running", pid=7)
    assert re.fullmatch(rf"{TIME} info    run run=r-1 phase=running pid=7\n", line), line


def test_colour_on_a_terminal_only() -> None:
    assert "\x1b[31merror  \x1b[0m" in said("error", stream=Terminal())
    assert "\x1b[33mwarning\x1b[0m" in said("warning", stream=Terminal())
    assert "\x1b" not in said("info", stream=Terminal())
    assert "\x1b" not in said("error")


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_journald_gets_the_priority_and_no_time(level: str, priority: int) -> None:
    assert said(level, "said", journald=True, debug=True, run="r") == f"<{priority}>said run=r\n"


def test_console_is_for_people_also_under_systemd() -> None:
    assert re.match(TIME, said(log_format="console", journald=True))


def test_json_is_a_document_a_line() -> None:
    document = json.loads(said("warning", "api", log_format="json", journald=True, detail="d\n", count=3, none=None))
    assert re.fullmatch(TIME, document.pop("time"))
    assert document == {"level": "warning", "event": "api", "detail": "d\n", "count": 3, "none": None}


@pytest.mark.parametrize("log_format", ["auto", "json"])
def test_the_place_of_a_problem_is_not_lost(log_format: LogFormat) -> None:
    """Callers say it as `at`, which was the name of the time once."""
    assert "conf.d/10.yaml:3:5" in said(log_format=log_format, at=Place("conf.d/10.yaml", 3, 5))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("a/b:c,d", "a/b:c,d"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("it's", '"it\'s"'),
        ("back\\slash it", r'"back\\slash it"'),
        ("one\ntwo", r'"one\ntwo"'),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("ümläut", "ümläut"),
        (True, "True"),
        (1.5, "1.5"),
        (["default"], "default"),
        (("high", "low"), '"high, low"'),
        ([], '""'),
        (["a\n<2>b"], r'"a\n<2>b"'),
    ],
)
def test_values(value: object, shown: str) -> None:
    assert said(journald=True, key=value) == f"<6>run key={shown}\n"


def test_a_list_of_names_is_a_list_for_machines_only() -> None:
    assert json.loads(said(log_format="json", queues=["high", "low"]))["queues"] == ["high", "low"]
    fields = entry(queues=["high", "low"])
    assert (fields["MESSAGE"], fields["RUNNERD_QUEUES"]) == ('run queues="high, low"', "high, low")


def test_nothing_said_of_none() -> None:
    assert said(journald=True, a=None, b=0) == "<6>run b=0\n"


BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\0"]


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize("journald", [True, False])
def test_a_name_from_the_network_cannot_write_a_line_of_ours(journald: bool, line_break: str) -> None:
    line = said(journald=journald, name=f"x{line_break}<2>forged")
    assert len(line.rstrip("\n").splitlines()) == 1, line


def failing() -> str:
    raise ValueError("this is the fault")


@pytest.mark.parametrize("journald", [True, False])
def test_tracebacks(journald: bool) -> None:
    stream = io.StringIO()
    log = make_log(log_format="auto", journald=journald, stream=stream)
    try:
        failing()
    except ValueError:
        log.exception("a run went wrong", run="r-1")
    lines = stream.getvalue().splitlines()
    assert "a run went wrong run=r-1" in lines[0]
    assert lines[-1].endswith("ValueError: this is the fault")
    if journald:
        assert all(line.startswith("<3>") for line in lines)


def test_debug_is_silent_unless_asked_for() -> None:
    assert said("debug") == ""
    assert said("debug", debug=True) != ""


def entry(level: str = "info", event: str = "run", **fields: object) -> dict[str, str]:
    """The one entry, where nothing is printed."""
    taken: list[Mapping[str, str]] = []
    stream = io.StringIO()
    log = make_log(log_format="auto", journald=True, stream=stream, debug=True, entries=taken.append)
    getattr(log, level)(event, **fields)
    assert stream.getvalue() == ""
    (one,) = taken
    return dict(one)


def test_an_entry_has_the_line_and_every_value() -> None:
    assert entry(run="r-1", deployment="nightly", phase="running", pid=7, user=None, why="two\nlines") == {
        "MESSAGE": 'run run=r-1 deployment=nightly phase=running pid=7 why="two\\nlines"',
        "PRIORITY": "6",
        "RUNNERD_RUN_ID": "r-1",
        "RUNNERD_DEPLOYMENT": "nightly",
        "RUNNERD_PHASE": "running",
        "RUNNERD_PID": "7",
        "RUNNERD_WHY": "two\nlines",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_the_priority_of_an_entry(level: str, priority: str) -> None:
    assert entry(level, "said")["PRIORITY"] == priority


def test_what_one_alerts_on_has_its_id() -> None:
    assert entry(alert=Alert.READY) == {"MESSAGE": "run", "PRIORITY": "6", "MESSAGE_ID": Alert.READY.value}
    assert "MESSAGE_ID" not in entry(alert=None)


def test_what_an_entry_is_about_is_not_in_its_line() -> None:
    record = a_record("r-1", name="brave-otter", phase=Phase.RUNNING)
    assert entry(run="r-1", about=about(record)) == {
        "MESSAGE": "run run=r-1",
        "PRIORITY": "6",
        "RUNNERD_RUN_ID": "r-1",
        "RUNNERD_RUN_NAME": "brave-otter",
        "RUNNERD_DEPLOYMENT": "nightly",
        "RUNNERD_FLOW": "etl",
        "RUNNERD_PHASE": "running",
        "RUNNERD_ATTEMPT": "1",
    }


def test_what_is_not_known_is_no_field() -> None:
    assert {"RUNNERD_DEPLOYMENT", "RUNNERD_FLOW"}.isdisjoint(entry(about=about(a_record(deployment="?", flow="?"))))


def test_a_deployment_is_found_by_its_name_alone() -> None:
    fields = entry(deployment="etl/nightly")
    assert fields["MESSAGE"] == "run deployment=etl/nightly"
    assert (fields["RUNNERD_FLOW"], fields["RUNNERD_DEPLOYMENT"]) == ("etl", "nightly")


def test_a_traceback_is_part_of_its_entry() -> None:
    taken: list[Mapping[str, str]] = []
    log = make_log(log_format="auto", journald=True, stream=io.StringIO(), entries=taken.append)
    try:
        failing()
    except ValueError:
        log.exception("a run went wrong", run="r-1")
    (one,) = taken
    lines = one["MESSAGE"].splitlines()
    assert (lines[0], lines[-1]) == ("a run went wrong run=r-1", "ValueError: this is the fault")
    assert one["PRIORITY"] == "3"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_who_asks_for_another_format_gets_lines(log_format: LogFormat) -> None:
    taken: list[Mapping[str, str]] = []
    stream = io.StringIO()
    log = make_log(log_format=log_format, journald=True, stream=stream, entries=taken.append)
    log.info("said")
    assert (taken, stream.getvalue().count("\n")) == ([], 1)


@pytest.mark.parametrize("log_format", ["auto", "console", "json"])
@pytest.mark.parametrize("journald", [True, False])
def test_lines_are_as_they_were(log_format: LogFormat, journald: bool) -> None:
    line = said(log_format=log_format, journald=journald, alert=Alert.READY, about=about(a_record()), run="r-1")
    assert Alert.READY.value not in line
    assert "etl" not in line
    assert "about" not in line
