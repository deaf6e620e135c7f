"""A host with flow files that use the API, or hang, when they are imported: registered and run as under `serve()`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server

PREPARE = """
from prefect.blocks.system import Secret
from prefect.variables import Variable
Secret(value="eight888").save("at-import", overwrite=True)
Variable.set("at_import", "moved", overwrite=True)
"""
USES = """
import asyncio
from prefect import flow, get_client
from prefect.blocks.system import Secret
from prefect.variables import Variable

SECRET = Secret.load("at-import").get()
PLACE = Variable.get("at_import")
PLACE = getattr(PLACE, "value", PLACE)


async def ask():
    async with get_client() as client:
        return len(await client.read_flows(limit=1))

ASKED = asyncio.run(ask())


def told(flow, flow_run, state):
    print("hook has", len(SECRET), PLACE)


@flow(name=f"uses {PLACE}", on_crashed=[told], log_prints=True)
def uses(die: bool = False):
    print("flow has", len(SECRET), PLACE, ASKED >= 0)
    if die:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""
OTHER = "from prefect import flow\n\n@flow\ndef other():\n    pass\n"
# Until the host's directory is removed: its last inspection outlives the host.
HANGS = "import os, time\n" + OTHER + "\nwhile os.path.exists(__file__):\n    time.sleep(1)\n"
RUN = '{{working_directory: "{root}", environment: {{PREFECT_HOME: "{root}/home"}}}}'
DROP_IN = f"""
deployments:
  - {{{{name: hangs, entrypoint: "hangs.py:other", run: {RUN}}}}}
  - {{{{name: uses, entrypoint: "uses.py:uses", run: {RUN}}}}}
  - {{{{name: other, entrypoint: "other.py:other", run: {RUN}}}}}
"""


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    subprocess.run(
        [server.python, "-c", PREPARE], env={**server.environment, "PREFECT_API_URL": server.url}, check=True
    )
    one = Host(url=server.url, python=server.python)
    root = one.root / "code"
    root.mkdir()
    for name, text in (("uses", USES), ("other", OTHER), ("hangs", HANGS)):
        (root / f"{name}.py").write_text(text)
    one.drop_in("10-code.yaml", DROP_IN.format(root=root))
    try:
        one.start()
        yield one
    finally:
        one.close()


def states(host: Host) -> dict[str, str]:
    return {one["name"]: one["state"] for one in host.json("deployments")}


def test_one_that_hangs_holds_up_no_other(host: Host) -> None:
    eventually(lambda: states(host).get("uses") == states(host).get("other") == "ready", "the two others", 300.0)
    assert states(host)["hangs"] == "unregistered"


def test_inspecting_starts_no_private_server(host: Host) -> None:
    home: Path = host.root / "code" / "home"
    assert [path.name for path in home.rglob("*")] == []


def test_it_runs_with_what_it_read(host: Host) -> None:
    run_id = host.run_now("uses")
    host.ended(run_id)
    assert host.api.state(run_id) == "COMPLETED", host.ctl("logs", run_id).stdout
    assert "flow has 8 moved True" in host.ctl("logs", run_id).stdout


def test_its_hooks_run(host: Host) -> None:
    run_id = host.run_now("uses", die=True)
    host.ended(run_id)
    assert host.api.state(run_id) == "CRASHED"
    assert "hook has 8 moved" in host.ctl("logs", run_id).stdout


def test_a_hanging_one_is_registered_once_it_is_mended(host: Host) -> None:
    (host.root / "code" / "hangs.py").write_text(OTHER)
    eventually(lambda: states(host)["hangs"] == "ready", "the mended file to be registered by itself", 300.0)
