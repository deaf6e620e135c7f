"""programs/run_engine.py in a real process, with a stand-in for Prefect whose server rounds, as the real one does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runnerd.launch.spec import PROGRAM, program_argv, program_text
from runnerd.launch.start_time import START_AT

RUN_ID = "6d9c3c1e-3a0c-4c0a-9a0e-000000000001"
AHEAD_S = 1.3
# What the engines of both majors do with a flow: they load it, propose Running, do more, and call it.
PREFECT = {
    "__init__.py": "import os, time\n__version__ = 'MAJOR.9.1'\n"
    "real, back_s = time.time, float(os.environ['CLOCK_SET_BACK_S'])\nif back_s: time.time = lambda: real() - back_s\n"
    "if os.environ['WARM']:\n"
    "    import prefect.flow_engine, sys\n    del sys.modules['prefect.engine']  # as a warm interpreter does\n",
    "client/__init__.py": "",
    "client/orchestration.py": """
import os, time, types
from stamps import stamp

def answer(state):
    stamp(f"proposed {state.type}")
    left = float(os.environ["DUE"]) + float(os.environ["SERVER_BEHIND_S"]) - time.time()
    wait = left > 0.5 and state.type == "RUNNING"
    return types.SimpleNamespace(status=os.environ.get("STATUS") or ("WAIT" if wait else "ACCEPT"))

class SyncPrefectClient:
    def set_flow_run_state(self, flow_run_id, state, force=False):
        return answer(state)

class PrefectClient:
    async def set_flow_run_state(self, flow_run_id, state, force=False):
        return answer(state)
""",
    "deployments.py": "async def load_flow_from_flow_run(*_, **__):\n    import flows\n    return flows.flow\n",
    "flows.py": "def load_flow_from_entrypoint(*_, **__):\n    import flows\n    return flows.flow\n"
    "async def load_flow_from_flow_run(*_, **__): ...\n",
    "flow_engine.py": """
import asyncio, contextlib, contextvars, threading, time, types
import prefect.engine
from prefect.flows import load_flow_from_entrypoint
from stamps import stamp
from prefect.client.orchestration import PrefectClient, SyncPrefectClient

OF_2 = prefect.__version__.startswith("2.")

def propose(flow_run_id, kind, sync):
    state = types.SimpleNamespace(type=kind)
    if sync:
        return SyncPrefectClient().set_flow_run_state(flow_run_id, state)
    return asyncio.run(PrefectClient().set_flow_run_state(flow_run_id, state=state))

@contextlib.contextmanager
def _send_heartbeats(flow, join_on_exit=True):
    end = threading.Event()
    def beat():
        while not end.is_set():
            time.sleep(3600)
    thread = threading.Thread(target=contextvars.copy_context().run, args=(beat,))
    thread.start()
    try:
        yield
    finally:
        end.set()
        if join_on_exit:
            thread.join()
            stamp("heartbeats ended")

def run_flow(flow, flow_run):
    sync = not flow.isasync
    propose("another run", "RUNNING", sync)
    while (said := propose(flow_run, "RUNNING", sync)).status == "WAIT":
        stamp("told to wait")
    if said.status != "ACCEPT":
        return stamp("left")
    for hook in (flow.on_running or []) if OF_2 else flow.on_running_hooks:
        hook()
    stamp("called held" if hasattr(flow.fn, "__wrapped__") else "called")
    with contextlib.nullcontext() if OF_2 else _send_heartbeats(flow):
        time.sleep(0.01)  # in the thread of the flow it sleeps
        result = flow.fn(name="x")
        if flow.isasync:
            asyncio.run(result)
    stamp("fn " + flow.fn.__name__)
    propose(flow_run, "COMPLETED", sync)
""",
    "engine.py": """
import asyncio, os
import prefect
if __name__ == "__main__":
    assert "RUNNERD_START_AT" not in os.environ and "RUNNERD_PROGRAM" not in os.environ
    from prefect import flow_engine
    from prefect.deployments import load_flow_from_flow_run
    of_2 = prefect.__version__.startswith("2.")
    flow = asyncio.run(load_flow_from_flow_run()) if of_2 else flow_engine.load_flow_from_entrypoint()
    flow_engine.run_flow(flow, flow_run=os.environ["PREFECT__FLOW_RUN_ID"])
""",
}
STAMPS = """
import json, os, time
def stamp(what):
    with open(os.environ["STAMPS"], "a") as file:
        file.write(json.dumps([what, time.time()]) + "\\n")
"""
FLOW = """
import os
from stamps import stamp

def sync(name):
    stamp("flow")

async def later(name):
    stamp("flow")

class Flow:
    fn = staticmethod(later if KIND == "async" else sync)
    isasync = KIND == "async"
    timeout_seconds = 30 if KIND == "timeout" else None
    flow_run_name = (lambda: "x") if KIND == "name" else None

    def on_running(self, hook): ...

flow = Flow()
hooks = [lambda: stamp("hook")] if KIND == "hook" else []
if MAJOR == 2:
    flow.on_running = hooks or None
else:
    flow.on_running_hooks = hooks
"""


def more_ahead_s() -> float:
    """How much earlier a process is to be started on a machine as busy as this one is now."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, inspect"], check=True, timeout=120)
    return 6 * (time.monotonic() - began)


def run(
    folder: Path, *, kind: str = "sync", major: int = 3, behind_s: float = 0.0, ahead_s: float = AHEAD_S,
    status: str = "", file: bool = True, set_back_s: float = 0.0, warm: bool = False,
) -> tuple[dict[str, float], list[str], str]:  # fmt: skip
    """Run the program; return when after the due time each thing happened first, all in order, and what it says."""
    for name, text in PREFECT.items():
        path = folder / "prefect" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("MAJOR", str(major)))
    (folder / "stamps.py").write_text(STAMPS)
    (folder / "flows.py").write_text(f"KIND, MAJOR = {kind!r}, {major}\n{FLOW}")
    due = time.time() + ahead_s + (more_ahead_s() if ahead_s > 0 else 0.0)
    environment = {
        "PYTHONPATH": str(folder), "STAMPS": str(folder / "stamps"), "DUE": repr(due), "PREFECT__FLOW_RUN_ID": RUN_ID,
        PROGRAM: program_text("run_engine"), START_AT: f"{due:.6f}", "SERVER_BEHIND_S": str(behind_s), "STATUS": status,
        "CLOCK_SET_BACK_S": str(set_back_s), "WARM": "1" if warm else "",
    }  # fmt: skip
    ready, script = folder / "ready", 'exec "$@" 3>"$READY"' if file else 'exec "$@" 3>&-'
    argv = ["/bin/sh", "-c", script, "sh", *program_argv(sys.executable, "prefect.engine")]
    done = subprocess.run(argv, env={**environment, "READY": str(ready)}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stamps: list[list[Any]] = [json.loads(line) for line in (folder / "stamps").read_text().splitlines()]
    if file:
        said = ready.read_text()
        assert said.endswith("\n") and float(said) <= stamps[-1][1] + 0.001
    first = {what: at - due for what, at in reversed(stamps)}
    return first, [what for what, _ in stamps], ready.read_text() if file else ""


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_flow_begins_when_it_is_due_and_everything_else_before(
    tmp_path: Path, kind: str, major: int, warm: bool
) -> None:
    """`warm`: the engine was imported before, as in a fork."""
    after, order, ready = run(tmp_path, kind=kind, major=major, warm=warm)
    assert order == [
        "proposed RUNNING", "proposed RUNNING", "called held", "flow", *(["heartbeats ended"] if major == 3 else []),
        f"fn {'later' if kind == 'async' else 'sync'}", "proposed COMPLETED",
    ]  # fmt: skip
    assert after["flow"] >= 0.0
    assert after["called held"] >= -0.25, "Running is not proposed earlier than servers accept"
    assert float(ready) > 0.0


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("kind", ["hook", "timeout", "name"])
def test_what_the_flow_has_before_its_call_is_not_early_either(tmp_path: Path, kind: str, major: int) -> None:
    after, order, _ = run(tmp_path, kind=kind, major=major)
    assert "told to wait" not in order
    assert after["called"] >= 0.0 and after["flow"] >= 0.0 and after.get("hook", 0.0) >= 0.0
    assert ("hook" in after) == (kind == "hook")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_whose_clock_is_behind_is_asked_again_when_the_run_is_due(tmp_path: Path, kind: str) -> None:
    after, order, _ = run(tmp_path, kind=kind, behind_s=0.4)
    assert order[:4] == [*["proposed RUNNING"] * 3, "called"], "and the engine does not sleep for whole seconds"
    assert after["called"] >= 0.0


def test_a_run_that_may_not_begin_leaves_at_once(tmp_path: Path) -> None:
    _, order, _ = run(tmp_path, status="ABORT")
    assert order == ["proposed RUNNING", "proposed RUNNING", "left"]


def test_a_late_one_begins_at_once_and_says_when_it_was_ready(tmp_path: Path) -> None:
    after, order, ready = run(tmp_path, ahead_s=-5.0)
    assert after["flow"] >= 5.0 and "called" in order
    assert float(ready) > 0.0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_clock_that_is_set_back_meanwhile_does_not_hold_the_flow(tmp_path: Path, kind: str) -> None:
    """The server's clock is right here, and lets it begin; the run would be held for an hour."""
    _, order, _ = run(tmp_path, kind=kind, set_back_s=3600.0, behind_s=-3600.0)
    assert order.count("flow") == 1 and "told to wait" not in order


def test_without_the_file_no_other_descriptor_is_written_to(tmp_path: Path) -> None:
    after, _, _ = run(tmp_path, file=False)
    assert after["flow"] >= 0.0
