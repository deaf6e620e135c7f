"""How Prefect's engine finds the code of a deployment as we register it, started as we start it and as others do."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.place import Place
from runnerd.core.prefect import FlowRun, Inspection, StateType
from runnerd.core.settings import Deployment, RunSettings
from runnerd.launch.client_defaults import CERTIFICATE, CERTIFICATE_FILE, VERSION_CHECK
from runnerd.prefect_api.answers import DeploymentBody
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.dialect import deployment_body
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server
T = TypeVar("T")
FLOW = """
import os, pathlib
from prefect import flow
import beside  # next to this file: its directory must be importable

@flow
def where(told: str):
    pathlib.Path(told).write_text(os.getcwd() + "\\n" + os.path.abspath(__file__))
"""


@pytest.mark.parametrize("start", ["as we do", "as others do"])
@pytest.mark.parametrize("entrypoint", ["relative", "absolute"])
async def test_the_flow_runs_in_its_directory_and_nothing_is_copied(
    prefect: PrefectServer, tmp_path: Path, start: str, entrypoint: str
) -> None:
    code, elsewhere, told = tmp_path / "code", tmp_path / "elsewhere", tmp_path / "told"
    (code / "flows").mkdir(parents=True)
    elsewhere.mkdir()
    (code / "flows" / "where.py").write_text(FLOW)
    (code / "flows" / "beside.py").write_text("")
    path = "flows/where.py" if entrypoint == "relative" else f"{code}/flows/where.py"
    wanted = Deployment(
        name=f"d-{uuid.uuid4().hex[:8]}",
        entrypoint=f"{path}:where",
        parameters={"told": str(told)},
        run=RunSettings(python=prefect.python, working_directory=str(code)),
        place=Place("a.yaml"),
    )
    run_id = await claimed_run(prefect, wanted)
    environment = {**prefect.environment, "PREFECT__FLOW_RUN_ID": run_id, "PYTHONDONTWRITEBYTECODE": "1"}
    ours = start == "as we do"
    if ours:
        environment["PREFECT__FLOW_ENTRYPOINT"] = wanted.entrypoint
        environment |= {CERTIFICATE_FILE: CERTIFICATE, VERSION_CHECK: "false"}
    directory = code if ours else elsewhere

    done = subprocess.run(
        [prefect.python, "-m", "prefect.engine"], cwd=directory, env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert await final_state(prefect, run_id) is StateType.COMPLETED, done.stderr
    assert told.read_text().splitlines() == [str(code), f"{code}/flows/where.py"]
    assert list(elsewhere.iterdir()) == []


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    for _ in range(100):
        try:
            return await call()
        except ApiAway:  # SQLite is busy
            await asyncio.sleep(0.1)
    return await call()


def client(server: PrefectServer) -> PrefectApi:
    return PrefectApi(url=server.url, credentials=Credentials, headers={}, timeout_s=60, now=lambda: datetime.now(UTC))


async def claimed_run(server: PrefectServer, wanted: Deployment) -> str:
    schema = {"type": "object", "properties": {"told": {"type": "string"}}}
    inspection = Inspection(
        flow_name="where", description=None, parameter_schema=schema, prefect_version="3", file=None
    )
    body = deployment_body(wanted, inspection, major=server.major)
    assert isinstance(body, DeploymentBody)
    api = client(server)
    try:
        flow_id = await insist(lambda: api.ensure_flow("where"))
        info = await insist(lambda: api.apply_deployment(body, flow_id=flow_id))
        run = await insist(lambda: api.create_run(info.id, parameters={}, idempotency_key=wanted.name))
        assert isinstance(run, FlowRun)
        await insist(lambda: api.claim(run.id, transition_id=str(uuid.uuid4())))
        return run.id
    finally:
        await api.close()


async def final_state(server: PrefectServer, run_id: str) -> StateType:
    api = client(server)
    try:
        run = await insist(lambda: api.read_run(run_id))
        assert run is not None
        return run.state.type
    finally:
        await api.close()
