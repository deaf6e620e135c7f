"""Runs the hooks that a flow has for the end of its run: a standalone program for the flow's interpreter (Python 3.9+).

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The work is JSON in RUNNERD_HOOKS, `{"hook": "on_crashed", "of_child": false}`; the
rest is the flow run's own environment. The exit status is 0 when every hook ran, 1 when a hook failed or the flow
could not be loaded.

A hook gets the arguments that Prefect gives it: the flow, the flow run and its state, read now. An exception of a hook
is logged, and the next hook runs.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import json
import os
import sys
import traceback
import warnings
from typing import Any


def main() -> int:
    work = json.loads(os.environ.pop("RUNNERD_HOOKS"))
    name = str(work["hook"])
    if name == "on_crashed" and work["of_child"] and engine_runs_crashed_hooks():
        say("the flow's own process reported the crash, and ran its hooks")
        return 0
    steps = os.environ.pop("RUNNERD_PULL_STEPS", None)
    if steps is not None:
        pull(json.loads(steps))
    sys.path.insert(0, os.getcwd())
    entrypoint = os.environ.get("PREFECT__FLOW_ENTRYPOINT")
    flow = load(entrypoint) if entrypoint else asyncio.run(load_deployed())
    hooks = hooks_of(flow, name)
    if not hooks:
        say(f"the flow has no {name} hooks")
        return 0
    return asyncio.run(run_all(hooks, flow, name))


def pull(steps: list[Any]) -> None:
    """Run the pull steps as programs/run_engine.py does, and enter the directory."""
    output = asyncio.run(importlib.import_module("prefect.deployments.steps.core").run_steps(steps))
    if output.get("directory"):
        os.chdir(output["directory"])


def engine_runs_crashed_hooks() -> bool:
    """Return whether this Prefect's engine runs the hooks of a crash that it reports, although they are disabled.

    2.x and older 3.x run none when hooks are disabled; newer ones disable only those of a cancellation.
    """
    try:
        engine = importlib.import_module("prefect.flow_engine")
    except ModuleNotFoundError:
        return False
    return "enable_cancellation_and_crashed_hooks" not in inspect.getsource(engine.FlowRunEngine.call_hooks)


def load(entrypoint: str) -> Any:
    load_flow = importlib.import_module("prefect.flows").load_flow_from_entrypoint
    return load_flow(entrypoint, **no_guess(load_flow))


async def load_deployed() -> Any:
    """Load the flow of a work pool's run from its deployment, whose pull steps fetch the code."""
    load_flow = getattr(importlib.import_module("prefect.flows"), "load_flow_from_flow_run", None)
    if load_flow is None:  # 2.x
        load_flow = importlib.import_module("prefect.deployments").load_flow_from_flow_run
    flow_run = await read_flow_run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 2.20 warns that the function moves, and uses it too
        loading = load_flow(flow_run=flow_run, **no_guess(load_flow))
    return await loading


def no_guess(load_flow: Any) -> Any:
    """Make the option without which Prefect guesses a flow from the syntax tree of a file that cannot be imported."""
    known = "use_placeholder_flow" in inspect.signature(load_flow).parameters
    return {"use_placeholder_flow": False} if known else {}


async def read_flow_run() -> Any:
    async with importlib.import_module("prefect.client.orchestration").get_client() as client:
        return await client.read_flow_run(os.environ["PREFECT__FLOW_RUN_ID"])


def hooks_of(flow: Any, name: str) -> list[Any]:
    """List the flow's hooks: `on_crashed_hooks` in 3.x, where `on_crashed` is the decorator; `on_crashed` in 2.x."""
    found = getattr(flow, f"{name}_hooks", None)
    if found is None:
        found = getattr(flow, name, None)
    return found if isinstance(found, list) else []


async def run_all(hooks: list[Any], flow: Any, name: str) -> int:
    flow_run = await read_flow_run()
    logger = importlib.import_module("prefect.logging.loggers").flow_run_logger(flow_run, flow)
    failed = 0
    for hook in hooks:
        called = getattr(hook, "__name__", None) or repr(hook)
        logger.info("Running hook %r in response to entering state %r", called, flow_run.state.name)
        try:
            await run_one(hook, flow, flow_run)
        except Exception:
            failed += 1
            logger.exception("An error was encountered while running hook %r", called)
        else:
            logger.info("Hook %r finished running successfully", called)
    say(f"{name}: {len(hooks)} hooks were run, {failed} failed")
    return 1 if failed else 0


async def run_one(hook: Any, flow: Any, flow_run: Any) -> None:
    # By keyword, as Prefect's runners do: a hook may take these in another order, or some of them among others.
    call = functools.partial(hook, flow=flow, flow_run=flow_run, state=flow_run.state)
    if inspect.iscoroutinefunction(hook):
        await call()
        return
    # In a thread, as Prefect's runners do: a hook may start an event loop of its own.
    result = await asyncio.get_running_loop().run_in_executor(None, call)
    if inspect.isawaitable(result):
        await result


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.exit(status)
