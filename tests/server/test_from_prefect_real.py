"""docs/from-prefect.md and the installed Prefects have the same options, arguments, methods, settings and commands."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.kits.checkout import ROOT
from tests.kits.prefect_servers import ENVS, NEEDED

pytestmark = pytest.mark.server
TEXT = (ROOT / "docs" / "from-prefect.md").read_text()
MAJORS = (2, 3)
# Run under a Prefect's own interpreter. It prints {heading of the document: [names that the table has to have, names
# that the table may have]}.
PROGRAM = '''
import contextlib, importlib, inspect, io, json, pathlib, re, sys
import prefect
import prefect.flows
from prefect.cli import app
from prefect.flows import Flow
from prefect.runner import Runner, server, storage
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

TWO = prefect.__version__.startswith("2")
if not TWO:
    from prefect.cli._app import _app as app

def help_of(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app([*words, "--help"])
    return out.getvalue()

def options(*words):
    return sorted(set(re.findall(r"(?<![\\w-])--[a-z][a-z-]+", help_of(*words))))

def short(*words):
    return re.findall(r"(?<![\\w-])-[a-z](?![\\w-])", help_of(*words)) + ["--help"]

def positional(*words):
    return [name.lower() for name in re.findall(r"\\[([A-Z_]+)\\]", help_of(*words).split("Options")[0])]

def commands(*words):
    listed = re.split(r"Commands \\u2500+", help_of(*words))[1].split("\\u256f")[0]
    return re.findall(r"^\\u2502 ([a-z][a-z-]+) ", listed, re.M)

def verbs(group):
    """Its commands, and their options but for what every command has, and the opposites of switches."""
    common = re.compile("--(help|profile|prompt|name|(no|empty)-.*)$")
    names = commands(group)
    return sorted({*names, *(one for name in names for one in options(group, name) if not common.match(one))})

def arguments(function):
    any_more = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return [name for name, its in parameters.items() if name != "self" and its.kind not in any_more]

def members(*classes):
    return sorted({name for one in classes for name in dir(one) if not name.startswith("_")})

def functions(module, *names):
    return [name for name in names if hasattr(module, name)]

def public_classes(module, but=()):
    return sorted(name for name, one in vars(module).items() if inspect.isclass(one)
                  and one.__module__ == module.__name__ and not name.startswith("_") and name not in but)

def settings():
    if TWO:
        return sorted(importlib.import_module("prefect.settings").SETTING_VARIABLES)
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields
    return sorted(_get_settings_fields(Settings))

def variables():
    """What the sources read from the environment besides settings."""
    sources = pathlib.Path(prefect.__file__).parent.rglob("*.py")
    return sorted({name for one in sources
                   for name in re.findall(r"environ(?:\\.get)?[(\\[]\\"(PREFECT_[A-Z_]+)\\"", one.read_text())})

def routes(module):
    """Paths, with whatever stands in braces as {id}."""
    found = re.findall(r'"(/[a-z][\\w/{}.]*)"', inspect.getsource(module))
    return sorted({re.sub("{.*?}", "{id}", path) for path in found})

found = {
    "prefect worker start": [options("worker", "start"), short("worker", "start")],
    "BaseWorker and ProcessWorker": [members(ProcessWorker) + arguments(BaseWorker.__init__), []],
    "The base job template of type process": [
        list(ProcessJobConfiguration.__fields__ if TWO else ProcessJobConfiguration.model_fields), []
    ],
    "Runner()": [arguments(Runner.__init__), []],
    "Methods of Runner": [members(Runner), []],
    "Its web server": [routes(server), ["GET", "POST"]],
    "flow.serve(), add_flow(), to_deployment(), prefect flow serve": [sorted({
        *arguments(Flow.serve), *arguments(prefect.flows.serve), *arguments(Runner.add_flow),
        *arguments(Flow.to_deployment), *options("flow", "serve"), *functions(prefect.flows, "serve", "aserve"),
    }), short("flow", "serve")],
    "flow.from_source(...).serve() and its storage": [sorted({
        *public_classes(storage, but=("RunnerStorage", "GitCredentials")),
        *arguments(storage.GitRepository.__init__),
        *arguments(storage.LocalStorage.__init__),
        *members(storage.RunnerStorage),
    }), []],
    "Settings": [
        [name for name in settings() if re.match("PREFECT_(RUNNER|WORKER|AGENT|CLIENT)_", name)],
        settings() + variables(),
    ],
    "prefect work-pool": [verbs("work-pool"), []],
    "prefect work-queue": [verbs("work-queue"), []],
}
if TWO:
    from prefect import infrastructure
    from prefect.agent import PrefectAgent
    agent = ("agent", "start")
    found["prefect agent start"] = [options(*agent), short(*agent) + positional(*agent)]
    found["PrefectAgent"] = [members(PrefectAgent) + arguments(PrefectAgent.__init__), []]
    found["Infrastructure blocks"] = [[], sorted(vars(infrastructure))]
json.dump(found, sys.stderr)
'''

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


@functools.cache
def installed(major: int) -> Mapping[str, tuple[list[str], list[str]]]:
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ}
    python = ENVS / f"prefect{major}" / "bin" / "python"
    with tempfile.TemporaryDirectory() as home:
        environment |= {"HOME": home, "PREFECT_HOME": home, "COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [python, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd=home
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[list[str], list[str]]] = json.loads(done.stderr.splitlines()[-1])
    return found


def headings() -> set[str]:
    return {heading for major in MAJORS for heading in installed(major)}


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
    none: tuple[list[str], list[str]] = ([], [])
    return tuple(major for major in MAJORS if has(installed(major).get(named.heading, none), named.name))


def missing_in(text: str, major: int) -> list[tuple[str, str]]:
    """What this Prefect has and its table has not."""
    return [
        (heading, name)
        for heading, (names, _) in installed(major).items()
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
    assert all(names or more for names, more in installed(major).values()), installed(major)
    assert missing_in(TEXT, major) == []


def test_whatever_is_in_the_tables_some_prefect_has() -> None:
    assert sum(1 for heading in headings() for _ in in_table(TEXT, heading)) > 250
    assert gone_in(TEXT) == []
    assert {name for name in NOT_PREFECTS if any(has(names, name) for names in installed(3).values())} == set()


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
