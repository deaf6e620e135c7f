"""triggers= of a script: its entry makes the automations that the same triggers in a file make.

tests/server/test_triggers.py proves those equal to Prefect's own, of to_deployment() too, field by field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerd.config.sections import Flaws
from runnerd.config.triggers import read_triggers
from runnerd.config.yaml_file import parse_map
from tests.kits.read_scripts import read_scripts
from tests.server.test_triggers import TRIGGERS, declared

pytestmark = pytest.mark.server

SCRIPT = """
import yaml
from prefect import flow, serve
from prefect.events import DeploymentCompoundTrigger, DeploymentEventTrigger, DeploymentSequenceTrigger

KINDS = {"compound": DeploymentCompoundTrigger, "sequence": DeploymentSequenceTrigger}

@flow
def work(x: int = 0): ...

def made(said):
    return [KINDS.get(one.get("type"), DeploymentEventTrigger)(**one) for one in said]

if __name__ == "__main__":
    with open("triggers.yaml") as file:
        serve(*(work.to_deployment(name, triggers=made(said)) for name, said in yaml.safe_load(file).items()))
"""


def read(name: str, triggers: Any) -> tuple[Any, ...]:
    flaws = Flaws([])
    found = read_triggers(parse_map(yaml.safe_dump({"triggers": triggers}), file="a.yaml", or_empty=False), name, flaws)
    assert flaws.all == []
    return found


@pytest.mark.parametrize("major", [2, 3])
def test_the_triggers_of_a_script_are_those_of_a_file(major: int, tmp_path: Path) -> None:
    wanted = {name: said for name, said in declared(major).items() if said}
    assert wanted.keys() >= TRIGGERS.keys()
    (tmp_path / "triggers.yaml").write_text(yaml.safe_dump(wanted))
    (tmp_path / "serve.py").write_text(SCRIPT)
    answer = read_scripts(tmp_path, major, {"serve.py": 120.0})["serve.py"]
    entries = {one["entry"]["name"]: one["entry"] for one in answer["ok"]["deployments"]}
    for name, said in wanted.items():
        assert read(name, entries[name]["triggers"]) == read(name, said)
