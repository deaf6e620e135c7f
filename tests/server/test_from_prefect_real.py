"""docs/from-prefect.md has whatever the installed Prefects have: options, arguments, methods, settings, commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kits.checkout import ROOT
from tests.kits.prefect_servers import ENVS, NEEDED

pytestmark = pytest.mark.server
TEXT = (ROOT / "docs" / "from-prefect.md").read_text()
# Run under a Prefect's own interpreter: {heading of the document: names}, what the tables below that heading must have.
PROGRAM = '''
import contextlib, importlib, inspect, io, json, re, sys
import prefect
from prefect.cli import app
from prefect.flows import Flow, serve
from prefect.runner import Runner, storage
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

TWO = prefect.__version__.startswith("2")
if not TWO:
    from prefect.cli._app import _app as app

def told(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app([*words, "--help"])
    return out.getvalue()

def options(*words):
    return sorted(set(re.findall(r"(?<![\\w-])--[a-z][a-z-]+", told(*words))))

def commands(*words):
    listed = re.split(r"Commands \\u2500+", told(*words))[1].split("\\u256f")[0]
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

def settings():
    if TWO:
        return sorted(importlib.import_module("prefect.settings").SETTING_VARIABLES)
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields
    return sorted(_get_settings_fields(Settings))

found = {
    "prefect worker start": options("worker", "start"),
    "BaseWorker and ProcessWorker": members(ProcessWorker) + arguments(BaseWorker.__init__),
    "The base job template of type process": list(
        ProcessJobConfiguration.__fields__ if TWO else ProcessJobConfiguration.model_fields
    ),
    "Runner()": arguments(Runner.__init__),
    "Methods of Runner": members(Runner),
    "flow.serve(), add_flow(), to_deployment(), prefect flow serve": sorted({
        *arguments(Flow.serve), *arguments(serve), *arguments(Runner.add_flow), *arguments(Flow.to_deployment),
        *options("flow", "serve"),
    }),
    "flow.from_source(...).serve() and its storage": sorted({
        *(name for name, one in vars(storage).items() if inspect.isclass(one) and one.__module__ == storage.__name__
          and not name.startswith("_") and name not in ("RunnerStorage", "GitCredentials")),
        *arguments(storage.GitRepository.__init__),
        *members(storage.RunnerStorage),
    }),
    "Settings": [name for name in settings() if re.match("PREFECT_(RUNNER|WORKER|AGENT|CLIENT)_", name)],
    "prefect work-pool": verbs("work-pool"),
    "prefect work-queue": verbs("work-queue"),
}
if TWO:
    from prefect.agent import PrefectAgent
    found["prefect agent start"] = options("agent", "start")
    found["PrefectAgent"] = members(PrefectAgent) + arguments(PrefectAgent.__init__)
json.dump(found, sys.stderr)
'''


def installed(major: int, home: Path) -> dict[str, list[str]]:
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ}
    environment |= {"HOME": str(home), "PREFECT_HOME": str(home), "COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}
    python = ENVS / f"prefect{major}" / "bin" / "python"
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd=home, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stderr.splitlines()[-1])
    return found


def in_table(heading: str) -> set[str]:
    """The words of the left cells below this heading."""
    _, _, rest = TEXT.partition(f"# {heading}\n")
    cells = [line.split("|")[1] for line in re.split(r"^#", rest, flags=re.M)[0].splitlines() if line.startswith("| ")]
    return {word for cell in cells for span in re.findall(r"`([^`]+)`", cell) for word in span.split()}


@pytest.mark.parametrize("major", [2, 3])
def test_whatever_prefect_has_is_in_the_tables(major: int, tmp_path: Path) -> None:
    found: Any = installed(major, tmp_path)
    assert all(found.values()), found
    missing = {heading: sorted(set(names) - in_table(heading)) for heading, names in found.items()}
    assert {heading: names for heading, names in missing.items() if names} == {}
