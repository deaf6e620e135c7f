"""What is said of scripts that serve nothing, twice, on each import, or never end: both Prefects, without a server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import ANSWER_S, alive, eventually
from tests.kits.prefect_servers import ENVS
from tests.kits.read_scripts import read_scripts

pytestmark = pytest.mark.server

HEAD = "import os, sys, threading, time\nfrom prefect import flow\n\n@flow\ndef one(): ...\n\n@flow\ndef two(): ...\n\n"
IS_MAIN = "if __name__ == '__main__':\n"
HANG_S = 20.0


@dataclass(frozen=True)
class Bad:
    """`message` is said of `line`; `served` are the names that are served all the same, None where nothing is."""

    body: str
    message: str
    line: int | None = None
    served: tuple[str, ...] | None = None
    limit_s: float = 120.0


FIRST = HEAD.count("\n") + 1
SCRIPTS = {
    "never": Bad("print('done')\n", "it ends and has served no flow; call serve() in it"),
    "exits": Bad("sys.exit(3)\n", "it exits with 3 before it serves a flow"),
    "leaves": Bad("os._exit(4)\n", "the interpreter exited 4 before the script served a flow"),
    "dies": Bad("os.kill(os.getpid(), 9)\n", "the interpreter was killed by SIGKILL before the script served a flow"),
    "raises": Bad("x = 1\nraise KeyError('REGION')\n", "KeyError: 'REGION'", FIRST + 1),
    "wrong": Bad("x = 1\ndef broken(:\n", "SyntaxError: invalid syntax", FIRST + 1),
    "hangs": Bad("time.sleep(10_000)\n", "after 20s it had neither ended nor served a flow", limit_s=HANG_S),
    "refuses": Bad("one.serve('a%b')\n", "Runner name cannot contain '/' or '%'", FIRST),
    "adds": Bad(
        "import asyncio\nfrom prefect.runner import Runner\n\nasync def main():\n    await Runner().add_flow(one)\n\n"
        + IS_MAIN + "    asyncio.run(main())\n",
        "it adds deployments to a Runner and never starts it, so nothing is served", FIRST + 4,
    ),
    "starts": Bad(
        "import asyncio\nfrom prefect.runner import Runner\n\nasync def main():\n    await Runner().start()\n\n"
        + IS_MAIN + "    asyncio.run(main())\n",
        "it starts a Runner without a deployment", FIRST + 4,
    ),
    "deploys": Bad(IS_MAIN + "    one.deploy('x', work_pool_name='p')\n", "it deploys and serves nothing", FIRST + 1),
    "unguarded": Bad(
        "one.serve('one')\n", f'it serves on each import, and each run imports it; put line {FIRST} below', FIRST
    ),
    "asks": Bad(
        "from prefect.client.orchestration import get_client\nimport asyncio\n\nasync def main():\n"
        "    async with get_client() as client:\n        await client.read_flows()\n\nasyncio.run(main())\n",
        "RuntimeError: the script asks Prefect's API, which no script reaches while runnerd reads what it serves",
    ),
    "twice": Bad(
        IS_MAIN + "    one.serve('one')\n    two.serve('two')\n",
        f"line {FIRST + 1} serves until it is stopped, so this call is never reached", FIRST + 2, ("one",),
    ),
    "loops": Bad(
        IS_MAIN + "    for each in (one, two):\n        each.serve(each.name)\n",
        "serves until it is stopped, so the loop around it makes one turn only", FIRST + 2, ("one",),
    ),
    "else": Bad(
        IS_MAIN + "    if sys.argv:\n        one.serve('one')\n    else:\n        two.serve('two')\n",
        "", None, ("one",),
    ),
    "again": Bad(
        IS_MAIN + "    try:\n        one.serve('one')\n    finally:\n        raise ValueError('in its end')\n",
        "", None, ("one",),
    ),
    "others": Bad(
        IS_MAIN + "    two.deploy('x', work_pool_name='p')\n    one.serve('one')\n",
        "deploy() makes a deployment in a work pool, which is not served by this script", FIRST + 1, ("one",),
    ),
    "host": Bad(
        IS_MAIN + "    from prefect import serve\n    serve(one.to_deployment('a'), query_seconds=3, webserver=True)\n",
        "query_seconds=3 is a setting of the whole host: api.poll_interval of runnerd.yaml", FIRST + 2, ("a",),
    ),
    "threads": Bad(
        IS_MAIN + "    threading.Thread(target=one.serve, args=('one',), daemon=True).start()\n    time.sleep(10**4)\n",
        "", None, ("one",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[2, 3])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scripts")
    for name, bad in SCRIPTS.items():
        (folder / f"{name}.py").write_text(HEAD + bad.body)
    return read_scripts(folder, request.param, {f"{name}.py": bad.limit_s for name, bad in SCRIPTS.items()})


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_clear_message_is_said_of_it(name: str, answers: dict[str, Any]) -> None:
    bad, answer = SCRIPTS[name], answers[f"{name}.py"]
    if bad.served is None:
        assert "ok" not in answer
        said = answer["error"]
        assert re.match(rf"{name}\.py: |RuntimeError", said["message"])
        assert bad.message in said["message"]
        assert bad.line is None or said["line"] == bad.line
        return
    assert "error" not in answer, answer
    assert tuple(one["entry"]["name"] for one in answer["ok"]["deployments"]) == bad.served
    left_out = [(one["message"], one["line"]) for one in answer["ok"]["left_out"]]
    if bad.message:
        assert any(bad.message in message and line == bad.line for message, line in left_out), left_out
    else:
        assert left_out == []


def test_a_request_to_the_api_is_no_request(answers: dict[str, Any]) -> None:
    """The message is the program's own: nothing has tried to connect."""
    assert "GET" in answers["asks.py"]["error"]["message"] or "POST" in answers["asks.py"]["error"]["message"]


def test_the_answer_says_which_files_it_depends_on(answers: dict[str, Any]) -> None:
    assert any(path.endswith("/twice.py") for path in answers["twice.py"]["ok"]["dependencies"])


@pytest.mark.parametrize("major", [2, 3])
def test_an_import_that_is_interrupted_leaves_no_script_behind(major: int, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(
        "import os, time\nwith open('draft', 'w') as file:\n    file.write(str(os.getpid()))\n"
        "os.rename('draft', 'pid')\ntime.sleep(10_000)\n"
    )
    python = str(ENVS / f"prefect{major}" / "bin" / "python")
    argv = [sys.executable, "-m", "runnerd.cli", "import", "hangs.py", "--python", python]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "home")}
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        try:
            eventually((tmp_path / "pid").exists, "the script to be run", ANSWER_S)
            process.send_signal(signal.SIGINT)
            assert process.wait(ANSWER_S) != 0
        finally:
            process.kill()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not alive(pid), "the script to end", ANSWER_S)
