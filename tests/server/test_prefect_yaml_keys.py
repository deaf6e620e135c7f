"""The table of the keys of a prefect.yaml (tests/kits/prefect_yaml_keys.py) has every key that either Prefect reads."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.kits.prefect_servers import ENVS
from tests.kits.prefect_yaml_keys import OF_UPDATES, TABLES

pytestmark = pytest.mark.server

MODELS_OF_3 = """
import json
from prefect.cli.deploy import _models
from prefect.client.schemas.actions import DeploymentScheduleCreate
def keys(model):
    return [field.alias or name for name, field in model.model_fields.items()]
schedule = {*keys(_models.RawScheduleConfig), *keys(DeploymentScheduleCreate)} - {"schedule"}
print(json.dumps({"file": keys(_models.PrefectYamlModel), "deployment": keys(_models.DeploymentConfig),
                  "work_pool": keys(_models.WorkPoolConfig), "schedule": sorted(schedule),
                  "concurrency_limit": keys(_models.ConcurrencyLimitSpec)}))
"""


def known(table: str) -> set[str]:
    return set(TABLES[table]) | OF_UPDATES.get(table, set())


def test_all_keys_of_3_are_in_the_table(tmp_path: Path) -> None:
    python = str(ENVS / "prefect3" / "bin" / "python")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", MODELS_OF_3],
        text=True,
        capture_output=True,
        check=True,
        env={"PREFECT_HOME": str(tmp_path)},
    )
    read = json.loads(done.stdout)
    read["file"].remove("deployments")
    assert {table: set(keys) - known(table) for table, keys in read.items() if set(keys) - known(table)} == {}


def test_all_keys_of_2_are_in_the_table() -> None:
    """2.20 has no models of the file: it gets keys of its maps one by one."""
    (source,) = (ENVS / "prefect2").glob("lib/python3*/site-packages/prefect/cli/deploy.py")
    text = source.read_text()
    deployment = set(re.findall(r'deploy_config(?:\.get\(|\[)"(\w+)"', text)) - {"parameter_openapi_schema"}
    schedule = set(re.findall(r'schedule_config(?:\.get\(|\[)"(\w+)"', text))
    pool = set(re.findall(r'get_from_dict\(deploy_config, "work_pool\.(\w+)', text))
    assert len(deployment) > 10 and len(schedule) > 5 and len(pool) > 2
    assert deployment - known("deployment") == set()
    assert schedule - known("schedule") == set()
    assert pool - known("work_pool") == set()
