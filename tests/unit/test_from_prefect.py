"""docs/from-prefect.md: all that it names of runnerd and of Prefect is there, nothing of Prefect is left out, and its
files are good.

The names of Prefect are recorded in tests/kits/prefect_names.json; tests/server/test_from_prefect_real.py compares
these with the packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kits.checkout import ROOT
from tests.kits.config import ConfigDir
from tests.kits.documents import OPTION, SPAN, blocks, key_finding, of_this_host, synopsis_finding
from tests.kits.prefect_names import MAJORS, recorded

PREFECTS = recorded()
TEXT = (ROOT / "docs" / "from-prefect.md").read_text()
METRICS = (ROOT / "runnerd" / "control" / "backend" / "metrics.py").read_text()
ROUTES = "\n".join(path.read_text() for path in (ROOT / "runnerd" / "control").rglob("*.py"))
MANUAL = (ROOT / "docs" / "man" / "runnerd.8").read_text()


def rows() -> Iterator[tuple[str, str]]:
    """(theirs, ours) of each row of each table."""
    for line in TEXT.splitlines():
        if line.startswith("| "):
            _, theirs, ours, _ = line.split("|")
            if theirs.strip() != "Prefect":
                yield theirs.strip(), ours.strip()


def flaw_of(span: str, command: str) -> str | None:
    """What is wrong with something of ours; `command` is the last one named before it in its cell."""
    match span.partition(" ")[0]:
        case "runnerctl":
            return synopsis_finding(span)
        case "runnerd":
            taken = set(OPTION.findall(re.sub(r"Fl (?=-)", "-", MANUAL)))
            return None if set(OPTION.findall(span)) <= taken else "no such option"
        case "systemctl" | "journalctl":
            return None if "runnerd" in span else "not ours"
        case word if word.startswith("--"):
            return synopsis_finding(f"{command} {span}")
        case word if word.startswith("/v1/"):
            return None if f'"{span}"' in ROUTES else "no such route"
        case word if word.startswith("runnerd_"):
            return None if f'"{span}"' in METRICS else "no such metric"
        case word if word.isupper():
            return None if word.startswith("PREFECT_") or word == "SSL_CERT_FILE" else "no such variable"
    return key_finding(span)


def test_whatever_of_ours_is_named_is_there() -> None:
    flaws = {}
    for theirs, ours in rows():
        command = "runnerctl"
        for span in SPAN.findall(ours):
            flaws[theirs, span] = flaw_of(span, command)
            command = span if span.startswith("runnerctl ") else command
    assert len(flaws) > 150
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_a_wrong_name_is_found() -> None:
    wrong = (
        "pools[].limits", "pool.limit", "limits.run", "stop.then: wait", "runnerctl pools", "runnerctl pool list",
        "runnerctl pool create --priority", "runnerd --twice", "/v1/nothing", "runnerd_nothing", "EDITOR", "Whatever",
    )  # fmt: skip
    assert [span for span in wrong if flaw_of(span, "runnerctl") is None] == []
    right = ("pools[].run.user", "deployments[].schedules[].cron", "stop.then: crash", "pools[].create: false")
    assert [span for span in right if flaw_of(span, "runnerctl") is not None] == []


def test_every_row_is_one_of_keys_verbs_or_words() -> None:
    """A row without any name of ours says why there is none."""
    silent = ("always", "never", "does not exist", "the same", "the server's", "the flow's own", "the keys of")
    unsaid = [theirs for theirs, ours in rows() if not SPAN.search(ours) and not ours.startswith(silent)]
    assert unsaid == []


def test_keys_and_verbs_in_the_text_are_there() -> None:
    prose = re.sub(r"^```.*?^```|^\|.*?$", "", TEXT, flags=re.M | re.S)
    ours = re.compile(r"(?:runnerctl|runnerd) .+|(?:api|limits|stop|late|run|pools\[\]|deployments\[\])\..+")
    flaws = {span: flaw_of(span, "runnerctl") for span in SPAN.findall(prose) if ours.fullmatch(span)}
    assert len(flaws) > 12
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_the_files_of_the_ways_to_move_are_good(tmp_path: Path) -> None:
    main, *drop_ins = blocks(TEXT, "yaml")
    etc = ConfigDir(tmp_path / "etc", main=of_this_host(main, tmp_path / "etc"))
    for number, text in enumerate(drop_ins):
        etc.write(f"conf.d/{number}.yaml", of_this_host(text, tmp_path / "etc"))
    config = etc.load()
    assert etc.words(config.problems) == []
    assert [pool.name for pool in config.pools] == ["etl", "default-agent-pool"]
    assert [deployment.name for deployment in config.deployments] == ["backup", "nightly"]


# --- what Prefect has -----------------------------------------------------------------------------------------

NAME = re.compile(r"--?[a-z][a-z-]*|/[a-z][\w/{}]*|[A-Za-z_][\w-]*(?:\.{3})?")
MARK = re.compile(r"\((2\.20|3) only[^)]*\)")
NOT_PREFECTS = {"grace_period_seconds"}  # the row says so
OF_ONE_MAJOR = {"prefect agent start", "PrefectAgent", "Infrastructure blocks"}  # the chapter says so


@dataclass(frozen=True)
class Named:
    """A name in a left cell below a heading, and the majors that the cell says have it."""

    heading: str
    name: str
    majors: tuple[int, ...]


def headings() -> set[str]:
    return {heading for major in MAJORS for heading in PREFECTS[major].names}


def in_table(text: str, heading: str) -> Iterator[Named]:
    """The names of the left cells below this heading. A mark is about the name before it, the last one of its span."""
    _, _, rest = text.partition(f"# {heading}\n")
    for line in re.split(r"^#", rest, flags=re.M)[0].splitlines():
        if line.startswith("| "):
            for span, mark in re.findall(r"`([^`]+)`(?: (\([^)]*\)))?", line.split("|")[1]):
                *others, last = names_of(span) or [""]
                yield from (Named(heading, name, MAJORS) for name in others)
                if last:
                    only = MARK.fullmatch(mark)
                    yield Named(heading, last, (int(only[1][0]),) if only else MAJORS)


def names_of(span: str) -> list[str]:
    """The words of a span: placeholders of templates and references are none."""
    return [] if span.startswith(("{{", "$")) else [word for word in span.split() if NAME.fullmatch(word)]


def has(names: tuple[list[str], list[str]], name: str) -> bool:
    """`PREFECT_LOGGING_` and `PREFECT_SERVER_...` stand for all settings that begin so."""
    start = name.removesuffix("...")
    return any(one == name or (start.endswith("_") and one.startswith(start)) for its in names for one in its)


def who_has(named: Named) -> tuple[int, ...]:
    return tuple(major for major in MAJORS if has(PREFECTS[major].names.get(named.heading, ([], [])), named.name))


def missing_in(text: str, major: int) -> list[tuple[str, str]]:
    """What this Prefect has and its table has not."""
    return [
        (heading, name)
        for heading, (names, _) in PREFECTS[major].names.items()
        for name in names
        if name not in {one.name for one in in_table(text, heading)}
    ]


def gone_in(text: str) -> list[Named]:
    """What a table has and no Prefect."""
    return [
        one
        for heading in sorted(headings())
        for one in in_table(text, heading)
        if one.name not in NOT_PREFECTS and not who_has(one)
    ]


def wrong_marks_in(text: str) -> list[tuple[Named, tuple[int, ...]]]:
    """What a table says of the majors that have it, and those that do."""
    return [
        (one, who_has(one))
        for heading in sorted(headings() - OF_ONE_MAJOR)
        for one in in_table(text, heading)
        if one.name not in NOT_PREFECTS and who_has(one) not in ((), one.majors)
    ]


@pytest.mark.parametrize("major", MAJORS)
def test_whatever_prefect_has_is_in_the_tables(major: int) -> None:
    assert all(names or more for names, more in PREFECTS[major].names.values()), PREFECTS[major].names
    assert missing_in(TEXT, major) == []


def test_whatever_is_in_the_tables_some_prefect_has() -> None:
    assert sum(1 for heading in headings() for _ in in_table(TEXT, heading)) > 250
    assert gone_in(TEXT) == []
    assert {name for name in NOT_PREFECTS if any(has(names, name) for names in PREFECTS[3].names.values())} == set()


def test_the_versions_are_named() -> None:
    assert all(f"Prefect {one.version}" in TEXT for one in PREFECTS.values())


def test_the_tables_say_which_major_has_it() -> None:
    assert wrong_marks_in(TEXT) == []


def test_a_table_that_is_wrong_is_found() -> None:
    row = "| `execute_flow_run` (2.20 only) |"
    assert row in TEXT
    assert ("Methods of Runner", "execute_flow_run") in missing_in(TEXT.replace(row, "| `nothing` |"), 2)
    gone = gone_in(TEXT.replace(row, "| `execute_flow_run` (2.20 only), `execute_bundle` |"))
    assert [one.name for one in gone] == ["execute_bundle"]
    wrong = wrong_marks_in(TEXT.replace(row, "| `execute_flow_run` |"))
    assert [(one.name, majors) for one, majors in wrong] == [("execute_flow_run", (2,))]
