"""Runs prefect.engine, held until the run is due: a standalone program for the flow's interpreter.

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The environment is the flow run's own.

With PREFECT__FLOW_ENTRYPOINT, the engine of Prefect 2 imports the file in its event loop: a block's `load` or
`asyncio.run()` at module level fails there. Without it, the engine imports in a worker thread, as under `serve()`, but
reads from the API which code to fetch and import. So the variable is taken away, and the engine's function is replaced
by one that imports this host's code in a worker thread. The engine of Prefect 3 imports outside any event loop; its
sync flows wait in their end for a thread that sleeps in whole seconds, which is woken here.

With RUNNERD_PULL_STEPS, a list in JSON, the pull steps of the deployment's file are run first, by Prefect's own
function.

With RUNNERD_START_AT (seconds since the epoch), the engine imports and prepares everything at once and begins the flow
at that time. Left alone, it would sleep for as long as the server says, in whole seconds: the server rounds, so a flow
begins up to half a second too early or too late. The time at which the process was ready is written to descriptor 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import inspect
import json
import os
import runpy
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

# How long before the time the API gets Running, whose answer takes a while: servers accept it half a second too early.
EARLY_S = 0.25
STEP_S = 1.0  # of a sleep: a clock that is set forward meanwhile is noticed after that
READY_FD = 3
RECHECK_S = 0.001  # the woken thread of heartbeats checks again whether it has to stop: it has to, at once
LOADERS = ("load_flow_from_entrypoint", "load_flow_from_flow_run")  # of prefect.flows, for the engine of Prefect 3


def main() -> None:
    if sys.path[:1] == [""]:
        sys.path[0] = os.getcwd()  # as with `python -m`
    del sys.argv[1:]
    start_at = os.environ.pop("RUNNERD_START_AT", None)
    hold = None if start_at is None else Hold(os.environ.get("PREFECT__FLOW_RUN_ID", ""), float(start_at))
    steps = os.environ.pop("RUNNERD_PULL_STEPS", None)
    if steps is not None:
        run_pull_steps(json.loads(steps))
    major = str(importlib.import_module("prefect").__version__).partition(".")[0]
    if major == "2":
        entrypoint = os.environ.pop("PREFECT__FLOW_ENTRYPOINT", None)
        if entrypoint is not None:  # else the engine pulls the code as the deployment says
            load_in_thread(entrypoint)
    else:
        end_heartbeats_when_imported()
    if hold is not None:
        hold.install(major)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def run_pull_steps(steps: list[Any]) -> None:
    """Run them as the engine does for a deployment without an entrypoint in the environment, and enter the directory.

    What they return may be anything a step of a package says; the engine looks for "directory" only.
    """
    core = importlib.import_module("prefect.deployments.steps.core")
    here = os.getcwd()
    output = asyncio.run(core.run_steps(steps))
    if output.get("directory"):
        os.chdir(output["directory"])
    if sys.path[:1] == [here]:
        sys.path[0] = os.getcwd()
    path, _, function = os.environ.get("PREFECT__FLOW_ENTRYPOINT", "").rpartition(":")
    if path.endswith(".py"):
        os.environ["PREFECT__FLOW_ENTRYPOINT"] = f"{os.path.abspath(path)}:{function}"


def load_in_thread(entrypoint: str) -> None:
    load_flow = importlib.import_module("prefect.flows").load_flow_from_entrypoint
    # Else a flow that cannot be imported is guessed from its file's syntax tree.
    no_guess = (False,) if "use_placeholder_flow" in inspect.signature(load_flow).parameters else ()
    in_thread = importlib.import_module("prefect.utilities.asyncutils").run_sync_in_worker_thread

    async def load(*_: Any, **__: Any) -> Any:
        return await in_thread(load_flow, entrypoint, *no_guess)

    deployments: Any = importlib.import_module("prefect.deployments")
    deployments.load_flow_from_flow_run = load


def end_heartbeats_when_imported() -> None:
    """Let a sync flow of Prefect 3 end without the up to one second in which its thread of heartbeats sleeps on.

    The engine is imported when it loads the flow, but for a fork: to import it here would make runpy warn of that.
    """

    def ending(load: Any) -> Any:
        @functools.wraps(load)
        def load_flow(*args: Any, **kwargs: Any) -> Any:
            end_heartbeats_at_once()
            return load(*args, **kwargs)

        return load_flow

    end_heartbeats_at_once()
    wrap_loaders(ending, "prefect.flows", LOADERS)


def wrap_loaders(wrap: Callable[[Any], Any], module: str, names: tuple[str, ...]) -> None:
    """Wrap those of these functions that there are; the engine imports them by name.

    In the fork of a warm interpreter the engine of Prefect 3 has imported them before.
    """
    loader: Any = importlib.import_module(module)
    engine: Any = sys.modules.get("prefect.flow_engine")
    for name in names:
        if hasattr(loader, name):
            wrapped = wrap(getattr(loader, name))
            setattr(loader, name, wrapped)
            if hasattr(engine, name):
                setattr(engine, name, wrapped)


def end_heartbeats_at_once() -> None:
    """Wake the thread at the flow's end, for which the engine waits.

    It is not left behind, as async flows leave theirs: a flow at its memory limit needs the stack for another thread.
    """
    engine: Any = sys.modules.get("prefect.flow_engine")
    send = getattr(engine, "_send_heartbeats", None)
    if send is None or getattr(engine, "time", None) is not time:  # done already, or another Prefect than was read
        return
    ends: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("ends")

    @contextlib.contextmanager
    def send_until_the_end(*args: Any, **kwargs: Any) -> Any:
        end = threading.Event()
        with contextlib.ExitStack() as stack:
            token = ends.set(end)  # its thread gets a copy of this context, and nothing else does
            try:
                sending = stack.enter_context(send(*args, **kwargs))
            finally:
                ends.reset(token)
            stack.callback(end.set)  # before the engine stops the thread and joins it
            yield sending

    def sleep(seconds: float) -> None:
        end = ends.get(None)
        if end is None:
            time.sleep(seconds)
        elif end.wait(seconds):
            time.sleep(RECHECK_S)

    engine._send_heartbeats = send_until_the_end
    engine.time = types.SimpleNamespace(**{**vars(time), "sleep": sleep})


class Hold:
    """Holds the engine where it proposes Running for this run, the last step before hooks and the flow.

    The client's method is the same from 2.14 to 3.9; a Prefect without it waits as the server says. The engine makes
    more requests after that, so the hold ends where the flow is called, if the flow has nothing that is run or counted
    before.
    """

    def __init__(self, run_id: str, at: float) -> None:
        """Take descriptor 3, before any import can have opened another file as that."""
        self._run_id = run_id
        self._at = at
        self._sleep = Sleep(at)
        self._ready: Any = None
        with contextlib.suppress(OSError):  # started without the file
            os.set_inheritable(READY_FD, False)
            self._ready = open(READY_FD, "w")
        self._flow: Any = None

    def install(self, major: str) -> None:
        orchestration = importlib.import_module("prefect.client.orchestration")
        for name in ("SyncPrefectClient", "PrefectClient"):  # of sync and of async flows
            client: Any = getattr(orchestration, name, None)
            method = getattr(client, "set_flow_run_state", None)
            if method is not None:
                held = self._hold_async(method) if inspect.iscoroutinefunction(method) else self._hold_sync(method)
                client.set_flow_run_state = functools.wraps(method)(held)
        with contextlib.suppress(ImportError):  # then the hold ends before the answer
            if major == "2":
                wrap_loaders(self._note_flow_of, "prefect.deployments", ("load_flow_from_flow_run",))
            else:  # nothing that imports prefect.engine, which runpy would warn about
                wrap_loaders(self._note_flow_of, "prefect.flows", LOADERS)

    def _note_flow_of(self, load: Any) -> Any:
        """Note the flow that is loaded last: the engine's."""

        async def note(loading: Any) -> Any:
            self._flow = await loading
            return self._flow

        @functools.wraps(load)
        def load_and_note(*args: Any, **kwargs: Any) -> Any:
            try:
                loaded = load(*args, **kwargs)
            except BaseException:
                self._flow = None  # it may be one that the file has loaded
                raise
            if inspect.isawaitable(loaded):
                return note(loaded)
            self._flow = loaded
            return loaded

        return load_and_note

    def _hold_sync(self, method: Any) -> Any:
        def set_flow_run_state(client: Any, flow_run_id: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._begins(flow_run_id, state):
                return method(client, flow_run_id, state, *args, **kwargs)
            self._sleep.until(self._at - EARLY_S)
            answer = method(client, flow_run_id, state, *args, **kwargs)
            if self._holds_here(answer):
                self._sleep.until(self._at)
            return method(client, flow_run_id, state, *args, **kwargs) if must_wait(answer) else answer

        return set_flow_run_state

    def _hold_async(self, method: Any) -> Any:
        async def set_flow_run_state(client: Any, flow_run_id: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._begins(flow_run_id, state):
                return await method(client, flow_run_id, state, *args, **kwargs)
            await self._sleep.until_async(self._at - EARLY_S)
            answer = await method(client, flow_run_id, state, *args, **kwargs)
            if self._holds_here(answer):
                await self._sleep.until_async(self._at)
            return await method(client, flow_run_id, state, *args, **kwargs) if must_wait(answer) else answer

        return set_flow_run_state

    def _begins(self, flow_run_id: Any, state: Any) -> bool:
        """Return whether this run is about to begin; the first time, write down that the process is ready for it."""
        if str(flow_run_id) != self._run_id or word(state.type) != "RUNNING":
            return False
        if self._ready is not None:
            with contextlib.suppress(OSError), self._ready:
                self._ready.write(f"{time.time():.3f}\n")
            self._ready = None
        return time.time() < self._at

    def _holds_here(self, answer: Any) -> bool:
        """Return whether the hold ends before the answer is returned; where the flow begins it may end at its call.

        Then the flow must have no hooks and no function for its name, which would be early, and no timeout, for which
        the wait would count.
        """
        if word(answer.status) != "ACCEPT":
            return must_wait(answer)
        flow = self._flow
        before = ("timeout_seconds", "on_running_hooks", "flow_run_name")
        if flow is None or any(getattr(flow, name, None) for name in before):
            return True
        if isinstance(getattr(flow, "on_running", None), (list, tuple)):
            return True  # the hooks of Prefect 2; in Prefect 3 a decorator has this name
        self._hold_call(flow)
        return False

    def _hold_call(self, flow: Any) -> None:
        function = flow.fn

        @functools.wraps(function)  # the engine reads its signature
        def begin(*args: Any, **kwargs: Any) -> Any:
            flow.fn = function
            self._sleep.until(self._at)
            return function(*args, **kwargs)

        flow.fn = begin


class Sleep:
    """Sleeps until a time, but no longer than it was off at first: a clock that is set back must not hold a flow.

    Then the server decides: it says WAIT where the run is not due.
    """

    def __init__(self, at: float) -> None:
        self._last = time.monotonic() + at - time.time() + STEP_S  # more: a leap second sets it back too

    def _left(self, at: float) -> float:
        return min(at - time.time(), self._last - time.monotonic())

    def until(self, at: float) -> None:
        while (left := self._left(at)) > 0:
            time.sleep(min(left, STEP_S))

    async def until_async(self, at: float) -> None:
        while (left := self._left(at)) > 0:  # noqa: ASYNC110 (a time, for which no event exists)
            await asyncio.sleep(min(left, STEP_S))


def must_wait(answer: Any) -> bool:
    return word(answer.status) == "WAIT"


def word(value: Any) -> str:
    """Return the text of an enumeration's value, or of a text."""
    return str(getattr(value, "value", value))


if __name__ == "__main__":
    main()
