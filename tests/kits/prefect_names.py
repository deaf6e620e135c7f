"""The names that each Prefect has for what docs/from-prefect.md is about: recorded here, and read from its packages.

`python -m tests.kits.prefect_names` records them again, from the environments that tests/envs/make.sh makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from tests.kits.checkout import ROOT
from tests.kits.prefect_servers import ENVS, NEEDED

MAJORS = (2, 3)
RECORD = ROOT / "tests" / "kits" / "prefect_names.json"
# Run under a Prefect's own interpreter. It prints the version, and {heading of docs/from-prefect.md: [names that its
# table has to have, names that it may have]}.
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
json.dump({"version": prefect.__version__, "names": found}, sys.stderr)
'''


@dataclass(frozen=True)
class Names:
    """Of one Prefect: for each heading the names that a table has to have, and more that it may have."""

    version: str
    names: Mapping[str, tuple[list[str], list[str]]]


def recorded() -> dict[int, Names]:
    return {int(major): Names(**one) for major, one in json.loads(RECORD.read_text()).items()}


def installed(major: int) -> Names:
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ}
    python = ENVS / f"prefect{major}" / "bin" / "python"
    with tempfile.TemporaryDirectory() as home:
        environment |= {"HOME": home, "PREFECT_HOME": home, "COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [python, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd=home
        )
    assert done.returncode == 0, done.stderr
    return Names(**json.loads(done.stderr.splitlines()[-1]))


def main() -> None:
    found = {major: {"version": one.version, "names": one.names} for major in MAJORS if (one := installed(major))}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
