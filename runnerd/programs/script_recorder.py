"""Stands in for what serves and registers in Prefect, and records the calls; for record_script.py.

The text of this file is passed to the script's own interpreter together with record_script.py's (Python 3.9+).

Invariant: Prefect's own code makes the deployments, in the thread of the script, so that the line is known that calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from runnerd.programs.script_entries import Made, Start, Writer
from runnerd.programs.script_text import (
    Refusal,
    Served,
    calls_behind,
    dependencies,
    is_flow_of,
    is_guarded,
    modules_under_way,
    parse,
    runners_of,
)

OTHERS_MAX_S = 10.0  # for the others, once one of several threads serves
NO_API = "http://127.0.0.1:1/api"  # where nothing answers


def stand_in(recorder: Recorder) -> None:
    """Replace what registers, what serves and what asks the API; everything else stays Prefect's."""
    flows, made = importlib.import_module("prefect.flows"), importlib.import_module("prefect.deployments.runner")
    cut_off_api()
    replace_runner(recorder, importlib.import_module("prefect.runner.runner").Runner)
    for name in ("serve", "to_deployment"):
        keep_in_this_thread(flows.Flow, name)
    if keep_in_this_thread(flows, "serve"):
        vars(importlib.import_module("prefect"))["serve"] = flows.serve
    replace_deploys(recorder, flows, made)
    for function in (flows.Flow.serve, flows.serve, getattr(flows, "aserve", None)):
        forget_default(function, "pause_on_shutdown")
    made.RunnerDeployment._set_defaults_from_flow = recorder.noting_flow(made.RunnerDeployment._set_defaults_from_flow)


def replace_runner(recorder: Recorder, runner: Any) -> None:
    async def add(self: Any, deployment: Any) -> uuid.UUID:
        return recorder.add(self, deployment)

    async def start(self: Any, run_once: bool = False, webserver: Any = None) -> None:
        recorder.start(self, run_once, webserver)

    keep_in_this_thread(runner, "add_flow")
    for name, stands_in in (("add_deployment", add), ("start", start)):
        original = vars(runner)[name]
        is_plain = inspect.iscoroutinefunction(original) and not hasattr(original, "aio")
        setattr(runner, name, stands_in if is_plain else in_this_thread(stands_in))
    if hasattr(runner, "aadd_deployment"):
        runner.aadd_deployment = add
    runner.__init__ = recorder.noting_arguments(runner.__init__)


def replace_deploys(recorder: Recorder, flows: Any, made: Any) -> None:
    """Note what registers without serving: deploy() in all its places, and apply() of a deployment."""

    async def deploy(*args: Any, **kwargs: Any) -> uuid.UUID:
        recorder.deploys.append(recorder.line())
        return uuid.uuid4()

    modules = [importlib.import_module(name) for name in ("prefect.deployments", "prefect")]
    for owner, names in [
        (made.RunnerDeployment, ("apply", "aapply")),
        *((one, ("deploy", "adeploy")) for one in (flows.Flow, made, *modules)),
    ]:
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, in_this_thread(deploy) if name in ("deploy", "apply") else deploy)


def forget_default(function: Any, name: str) -> None:
    """Make None of a parameter's default, which Prefect passes on as if the script had said it."""
    if function is None:  # not in this Prefect
        return
    innermost = inspect.unwrap(function)
    known = [one for one in inspect.signature(innermost).parameters.values() if one.default is not one.empty]
    fresh = {one.name: None if one.name == name else one.default for one in known}
    innermost.__defaults__ = tuple(fresh[one.name] for one in known if one.kind is not one.KEYWORD_ONLY)
    innermost.__kwdefaults__ = {one.name: fresh[one.name] for one in known if one.kind is one.KEYWORD_ONLY}


def keep_in_this_thread(owner: Any, name: str) -> bool:
    """Replace a function of Prefect's that goes to another thread; False if it is none."""
    original = getattr(getattr(owner, name), "aio", None)
    if original is not None:
        setattr(owner, name, in_this_thread(original))
    return original is not None


def in_this_thread(function: Any) -> Any:
    """Make what Prefect calls from anywhere: a coroutine in an event loop, else the result.

    Prefect runs such functions in a thread of its own, where no frame says which line of the script has called.
    """

    @functools.wraps(function)
    def call(*args: Any, _sync: bool | None = None, **kwargs: Any) -> Any:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return function(*args, **kwargs)
        loop = asyncio.new_event_loop()  # not asyncio.run, after which there would be no current loop
        try:
            return loop.run_until_complete(function(*args, **kwargs))
        finally:
            loop.close()

    return call


def cut_off_api() -> None:
    """Refuse each request to the API with words, where Prefect would say that it cannot connect."""
    httpx = importlib.import_module("httpx")

    def refuse(request: Any) -> None:
        if str(request.url).startswith(NO_API):
            what = f"{request.method} {request.url.path[len('/api') :]}"
            message = "the script asks Prefect's API, which no script reaches while runnerd reads what it serves"
            raise RuntimeError(f"{message} ({what})")

    def refusing(original: Any) -> Any:
        def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            refuse(request)
            return original(self, request, *args, **kwargs)

        return send

    base = importlib.import_module("prefect.client.base")
    named = [getattr(base, name, None) for name in ("PrefectHttpxAsyncClient", "PrefectHttpxSyncClient")]
    for cls in (httpx.Client, httpx.AsyncClient, *named):
        if cls is not None and "send" in vars(cls):
            cls.send = refusing(cls.send)


class Recorder:
    """Records what the script does with Prefect."""

    def __init__(self, script: str, *, finish: Callable[[], None]) -> None:
        """`finish` ends this process with the answer that there is."""
        self.script = script
        self.finish = finish
        self.path = os.path.abspath(script)
        self.began_s = time.time()
        self.made: dict[int, Made] = {}
        self.arguments: dict[int, dict[str, Any]] = {}  # of each Runner()
        self.added: dict[int, list[tuple[Any, int | None]]] = {}  # by runner
        self.runners: list[Any] = []  # held, as above
        self.starts: list[Start] = []
        self.deploys: list[int | None] = []

    def lines(self) -> list[int]:
        """Return the lines of the script that are being called, the innermost first."""
        frame: Any = sys._getframe(1)
        found = []
        while frame is not None:
            if frame.f_code.co_filename == self.path:
                found.append(frame.f_lineno)
            frame = frame.f_back
        return found

    def line(self) -> int | None:
        return next(iter(self.lines()), None)

    def noting_arguments(self, original: Any) -> Any:
        @functools.wraps(original)
        def init(runner: Any, *args: Any, **kwargs: Any) -> None:
            original(runner, *args, **kwargs)
            said = inspect.signature(original).bind(runner, *args, **kwargs).arguments
            self.runners.append(runner)
            self.arguments[id(runner)] = {key: value for key, value in said.items() if value is not runner}

        return init

    def noting_flow(self, original: Any) -> Any:
        @functools.wraps(original)
        def set_defaults(deployment: Any, flow: Any) -> None:
            self.made[id(deployment)] = Made(deployment, flow, self.line())
            original(deployment, flow)

        return set_defaults

    def add(self, runner: Any, deployment: Any) -> uuid.UUID:
        self.added.setdefault(id(runner), []).append((deployment, self.line()))
        return uuid.uuid4()

    def start(self, runner: Any, run_once: bool, webserver: Any) -> None:
        arguments = {**self.arguments.get(id(runner), {}), "run_once": run_once}
        if webserver is not None:
            arguments["webserver"] = webserver
        self.starts.append(Start(runner, arguments, self.lines(), modules_under_way()))
        if threading.current_thread() is not threading.main_thread() and len(self.starts) == 1:
            waiting = threading.Timer(OTHERS_MAX_S, self.finish)
            waiting.daemon = True  # the main thread may go on for ever, or end before
            waiting.start()
        raise Served(f"{self.script} serves")

    def wait_for_threads(self) -> None:
        """Wait for the threads of a script that serves in several, and ends itself meanwhile."""
        until = time.monotonic() + OTHERS_MAX_S
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(max(0.0, until - time.monotonic()))

    def answer(self, began_ns: int) -> dict[str, Any]:
        """Make the answer. Raises Refusal for a script that serves nothing, or on each import."""
        if not self.starts:
            raise self.serves_nothing()
        served = [(one, deployment, line) for one in self.starts
                  for deployment, line in self.added.get(id(one.runner), ())]  # fmt: skip
        if not served:
            raise Refusal("serves-nothing", f"{self.script}: it starts a Runner without a deployment",
                          line=next(iter(self.starts[0].lines), None))  # fmt: skip
        self.refuse_unguarded([deployment for _, deployment, _ in served])
        writer = Writer(
            self.script, made=self.made, began_s=self.began_s, together=lambda one: len(self.added[id(one)])
        )
        return {
            "prefect_version": str(importlib.import_module("prefect").__version__),
            "deployments": [writer.write(start, deployment, line) for start, deployment, line in served],
            "left_out": [*writer.left_out, *self.deployed(), *self.never_reached()],
            "dependencies": dependencies(self.path, began_ns),
        }

    def deployed(self) -> list[dict[str, Any]]:
        what = "deploy() makes a deployment in a work pool, which is not served by this script and was left out"
        return [{"line": line, "message": what} for line in self.deploys]

    def serves_nothing(self) -> Refusal:
        line = None
        why = 'it ends and has served no flow; call serve() in it, below if __name__ == "__main__"'
        if self.added:
            line = next(line for its in self.added.values() for _, line in its)
            why = "it adds deployments to a Runner and never starts it, so nothing is served"
        elif self.deploys:
            line = self.deploys[0]
            why = "it deploys and serves nothing: a deployment in a work pool is an entry with work_pool.name"
        return Refusal("serves-nothing", f"{self.script}: {why}", line=line)

    def refuse_unguarded(self, deployments: list[Any]) -> None:
        """Refuse a file that serves whenever it is imported, because each run of its flows imports it."""
        for start in self.starts:
            for path, line in start.modules.items():
                own = [one for one in deployments if is_flow_of(one, path)]
                if own and not is_guarded(path, line):
                    name = self.script if path == self.path else path
                    why = (f"{name}: it serves on each import, and each run imports it; put line {line} below"
                           ' if __name__ == "__main__"')  # fmt: skip
                    raise Refusal("unguarded", why, line=line if path == self.path else None)

    def never_reached(self) -> list[dict[str, Any]]:
        """Say which calls the script never comes to, because the one before them goes on until it is stopped."""
        tree = parse(self.path)
        found = {}
        for start in self.starts if tree is not None else ():
            at = next(iter(start.lines), None)
            for line in start.lines:
                for later, loops in calls_behind(tree.body, line, runners_of(tree)):
                    what = f"line {at} serves until it is stopped, so this call is never reached"
                    if loops:
                        what = "serves until it is stopped, so the loop around it makes one turn only"
                    found[later] = {"line": later, "message": what}
        return [found[line] for line in sorted(found)]
