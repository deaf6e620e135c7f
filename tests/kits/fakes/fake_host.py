"""A daemon in memory: everything the control API asks for, and runs that go through their phases when told to.

Its work pools are those of a FakePrefect, asked by the real PoolsBackend.

`serving` puts it behind the real ControlServer on a real socket, in a thread of its own, so that tests may start the
real runnerctl as a process. All that touches the host goes through `Serving.call`, in that thread's loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from runnerd.control.backend.asking import Ask
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import Host, Peer, Refused
from runnerd.control.server import ControlServer
from runnerd.prefect_api.backoff import Backoff
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import fake_api

Json = Any
T = TypeVar("T")
STAMP = "2026-08-20T10:00:00+00:00"
LATER = "2026-08-20T10:00:12+00:00"


def a_run(run_id: str, **changes: Json) -> Json:
    """A running run; `changes` are its keys."""
    return {
        "id": run_id,
        "name": f"run-{run_id[:4]}",
        "deployment": "nightly",
        "flow": "etl",
        "phase": "running",
        "intent": None,
        "pid": 4711,
        "pgid": 4711,
        "user": "etl",
        "start": "cold",
        "created_at": STAMP,
        "started_at": STAMP,
        "ended_at": None,
        "api_state": "RUNNING",
        "api_state_name": "Running",
        "exit": None,
        "memory_bytes": 50 * 2**20,
        "cpu_seconds": 1.5,
    } | changes


def ended(**changes: Json) -> Json:
    """The keys that make a run one that is over."""
    return {
        "phase": "done",
        "pid": None,
        "pgid": None,
        "ended_at": LATER,
        "api_state": "COMPLETED",
        "api_state_name": "Completed",
        "exit": {"code": 0, "signal": None, "oom": False, "words": "exited 0"},
        "memory_bytes": None,
        "cpu_seconds": 2.0,
    } | changes


def a_deployment(deployment_id: str, name: str, **changes: Json) -> Json:
    return {
        "id": deployment_id,
        "name": name,
        "flow": "etl",
        "file": "/etc/runnerd/conf.d/20-etl.yaml",
        "line": 2,
        "state": "ready",
        "problem": None,
        "next_run_at": LATER,
        "running": 0,
        "limit": 1,
    } | changes


class FakeHost:
    """`asked` records every change and who asked for it; `refusal`, when set, answers every change that may refuse."""

    def __init__(self, *, outputs: Path) -> None:
        self.asked: list[tuple[str, Json]] = []
        self.peers: list[Peer] = []
        self.refusal: Refused | None = None
        self.well = True
        self.api_state = "ok"
        self.problems: list[Json] = []
        self.metrics_fail = False
        self.examined: Json = {"ok": True, "checks": []}
        self.attempt = 1
        self.knows_its_runs = asyncio.Event()
        self.knows_its_runs.set()
        self.reloaded: Json = {
            "ok": True,
            "added": ["fresh"],
            "changed": ["nightly"],
            "removed": [],
            "unchanged": 3,
            "pools": {"added": ["etl"], "changed": [], "removed": ["old"], "unchanged": 1},
            "problems": [],
        }
        self.prefect = FakePrefect(major=3)
        self.served_pools = {"etl"}
        self.pools = PoolsBackend(
            api=fake_api(self.prefect),
            ask=Ask(backoff=lambda: Backoff(first_s=0.01)),
            now=lambda: datetime.now(UTC),
            served=lambda: self.served_pools,
        )
        self._outputs = outputs
        self._runs: dict[str, Json] = {}
        self._deployments: dict[str, Json] = {}
        self._changed: list[Callable[[Json], None]] = []
        self._drain: Json = None

    # --- what tests do to it ---

    def put_run(self, run_id: str, **changes: Json) -> Json:
        """A new run, or changes to one; subscribers hear of it."""
        self._runs[run_id] = (self._runs.get(run_id) or a_run(run_id)) | changes
        for changed in list(self._changed):
            changed(dict(self._runs[run_id]))
        return dict(self._runs[run_id])

    def put_deployment(self, deployment_id: str, name: str, **changes: Json) -> None:
        self._deployments[deployment_id] = a_deployment(deployment_id, name, **changes)

    def subscribers(self) -> int:
        return len(self._changed)

    # --- Host ---

    def status(self) -> Json:
        return {
            "name": "build-07",
            "version": "9.9.9",
            "pid": 4242,
            "started_at": STAMP,
            "api": {
                "url": "http://127.0.0.1:4200/api",
                "state": self.api_state,
                "since": STAMP,
                "detail": "" if self.api_state == "ok" else "connection refused",
            },
            "draining": self._drain is not None,
            "drain": self._drain,
            "limits": {
                "runs": {"used": len(self.runs(history=False)), "max": 10},
                "tags": {"gpu": {"used": 0, "max": 1}},
            },
            "runs": self.runs(history=False),
            "deployments": self.deployments(),
            "problems": list(self.problems),
        }

    def health(self) -> tuple[bool, Json]:
        checks = [{"name": "journal", "ok": self.well, "detail": None if self.well else "disk full"}]
        return self.well, {"ok": self.well, "checks": checks}

    async def adopted(self) -> None:
        await self.knows_its_runs.wait()

    async def doctor(self) -> Json:
        return self.examined

    def config(self) -> Json:
        return {"name": "build-07", "limits": {"runs": 10}}

    async def metrics(self) -> str:
        if self.metrics_fail:
            raise RuntimeError("this is the fault under test")
        return "# TYPE runnerd_runs gauge\nrunnerd_runs 1\n"

    def runs(self, *, history: bool) -> list[Json]:
        return [dict(run) for run in self._runs.values() if history or run["phase"] != "done"]

    def run_document(self, run_id: str) -> Json | None:
        run = self._runs.get(run_id)
        return None if run is None else dict(run)

    def find_runs(self, ref: str) -> list[Json]:
        if ref in self._runs:
            return [dict(self._runs[ref])]
        named = [dict(run) for run in self._runs.values() if run["name"] == ref]
        return named or [dict(run) for run in self._runs.values() if run["id"].startswith(ref)]

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def output(self, run_id: str) -> str | None:
        run = self._runs.get(run_id)
        started = run is not None and run["phase"] not in (None, "claiming")
        suffix = "log" if self.attempt == 1 else f"{self.attempt}.log"
        return str(self._outputs / f"{run_id}.{suffix}") if started else None

    async def cancel(self, run_ids: Sequence[str], *, now: bool, peer: Peer) -> list[Json]:
        self._note("cancel", {"runs": list(run_ids), "now": now}, peer)
        for run_id in run_ids:
            if self._runs[run_id]["phase"] != "done":
                self.put_run(run_id, phase="killing" if now else "stopping", intent="cancel")
        return [dict(self._runs[run_id]) for run_id in run_ids]

    async def create_run(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        about = {"deployment": deployment_id, "parameters": parameters, "name": name, "tags": list(tags)}
        self._note("run", about, peer)
        its = self._deployments[deployment_id]
        created = sum(verb == "run" for verb, _ in self.asked)
        run_id = f"00000000-0000-4000-8000-{created:012}"
        return self.refusal or self._waiting(run_id, name or "lucky-crab", its["name"])

    async def execute(self, flow_run_id: str, *, peer: Peer) -> Json | Refused:
        self._note("execute", flow_run_id, peer)
        return self.refusal or self._waiting(flow_run_id, "given-run", None)

    def deployments(self) -> list[Json]:
        return [dict(its) for its in self._deployments.values()]

    def find_deployments(self, ref: str) -> list[Json]:
        every = self.deployments()
        exact = [its for its in every if ref in (its["id"], f"{its['flow']}/{its['name']}")]
        return exact or [its for its in every if its["name"] == ref]

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        self._note("pause" if paused else "resume", deployment_id, peer)
        if self.refusal:
            return self.refusal
        self._deployments[deployment_id]["state"] = "paused" if paused else "ready"
        return dict(self._deployments[deployment_id])

    async def reload(self, *, peer: Peer) -> Json:
        self._note("reload", None, peer)
        return self.reloaded

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        self._note("drain", {"timeout_s": timeout_s, "reason": reason}, peer)
        self._drain = {"since": STAMP, "reason": reason, "until": None if timeout_s is None else LATER}
        return self.status()

    def undrain(self, *, peer: Peer) -> Json:
        self._note("undrain", None, peer)
        self._drain = None
        return self.status()

    # --- inside ---

    def _note(self, verb: str, about: Json, peer: Peer) -> None:
        self.asked.append((verb, about))
        self.peers.append(peer)

    def _waiting(self, run_id: str, name: str, deployment: str | None) -> Json:
        return a_run(
            run_id,
            name=name,
            deployment=deployment,
            phase=None,
            pid=None,
            pgid=None,
            user=None,
            start=None,
            started_at=None,
            api_state="SCHEDULED",
            api_state_name="Scheduled",
            memory_bytes=None,
            cpu_seconds=None,
        )


_IS_A_HOST: type[Host] = FakeHost  # for mypy: the fake keeps the shape of the real one


class ListLog:
    """A structlog-like logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def exception(self, event: str, **fields: object) -> None:
        self.lines.append(("exception", event, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A FakeHost that answers at `socket`."""

    host: FakeHost
    log: ListLog
    socket: str
    outputs: Path
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call in the loop's thread and return what comes of it."""

        async def there() -> T:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(60)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for a condition on the host, looked at in its own thread."""

        async def there() -> None:
            while not happened():
                await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(there(), self.loop).result(60)


@contextmanager
def serving(directory: Path) -> Iterator[Serving]:
    """The fake behind the real server, on `directory`/control.sock, until the block is left."""
    host, log = FakeHost(outputs=directory), ListLog()
    socket = str(directory / "control.sock")
    with loop_in_thread() as loop:

        def wait(work: Coroutine[Any, Any, None]) -> None:
            asyncio.run_coroutine_threadsafe(work, loop).result(60)

        server = ControlServer(host=host, log=log, socket_path=socket)
        wait(server.start())
        try:
            yield Serving(host=host, log=log, socket=socket, outputs=directory, loop=loop)
        finally:
            wait(server.close())


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own until the block is left."""
    with asyncio.Runner() as runner:
        loop, over = runner.get_loop(), asyncio.Event()
        thread = threading.Thread(target=runner.run, args=(_until(over),))
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()


async def _until(over: asyncio.Event) -> None:
    await over.wait()
