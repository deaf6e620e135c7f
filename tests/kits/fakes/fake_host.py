"""A daemon in memory: everything the control API asks for, and runs that go through their phases when told to.

Its work pools are those of a FakePrefect, asked by the real PoolsBackend.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.documents import attempt_document
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import Host, Peer, Refused, RunElsewhere, SourceChange
from runnerd.core.prefect import FlowRun
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.output.output_file import OutputBlock, OutputReader
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_documents import LATER, STAMP, Json, a_deployment, a_run, ended
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import LogLines, fake_api


def _now() -> datetime:
    return datetime.now(UTC)


class FakeRuns:
    """The runs of a FakeHost; `knows_its_runs` is cleared while the last daemon's are not known."""

    def __init__(self, host: FakeHost, *, outputs: Path) -> None:
        self._host = host
        self._outputs = outputs
        self._reader = OutputReader(calls=BoundedCalls())
        self._runs: dict[str, Json] = {}
        self._changed: list[Callable[[Json], None]] = []
        self.attempt = 1
        self.elsewhere: dict[str, RunElsewhere] = {}  # what only Prefect has
        self.unread: Refused | None = None  # what Prefect answers when it is asked about them
        self.sought: list[str] = []  # what it was asked about
        self.knows_its_runs = asyncio.Event()
        self.knows_its_runs.set()

    # --- what tests do to them ---

    def put(self, run_id: str, **changes: Json) -> Json:
        """A new run, or changes to one; subscribers hear of it."""
        self._runs[run_id] = (self._runs.get(run_id) or a_run(run_id)) | changes
        for changed in list(self._changed):
            changed(dict(self._runs[run_id]))
        return dict(self._runs[run_id])

    def subscribers(self) -> int:
        return len(self._changed)

    # --- Runs ---

    async def adopted(self) -> None:
        await self.knows_its_runs.wait()

    def listing(self, *, history: bool) -> list[Json]:
        return [dict(run) for run in self._runs.values() if history or run["phase"] != "done"]

    def waiting(self) -> list[Json]:
        return []

    def listing_waiting(self) -> list[Json]:
        return [dict(run) for run in self._runs.values() if run.get("waiting")]

    def document(self, run_id: str) -> Json | None:
        run = self._runs.get(run_id)
        return None if run is None else dict(run)

    async def measure(self) -> None:
        return None

    def find(self, ref: str) -> list[Json]:
        if ref in self._runs:
            return [dict(self._runs[ref])]
        named = [dict(run) for run in self._runs.values() if run["name"] == ref]
        return named or [dict(run) for run in self._runs.values() if run["id"].startswith(ref)]

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def output(self, run_id: str, *, attempt: int | None = None) -> str | None:
        run = self._runs.get(run_id)
        started = run is not None and run["phase"] not in (None, "claiming")
        return self._path(run_id, attempt or self.attempt) if started or attempt else None

    def _path(self, run_id: str, attempt: int) -> str:
        return str(self._outputs / f"{run_id}.{'log' if attempt == 1 else f'{attempt}.log'}")

    async def attempts(self, run_id: str) -> list[Json] | str:
        found = await self._reader.find({number: self._path(run_id, number) for number in range(1, self.attempt + 1)})
        if isinstance(found, str):
            return found
        return [attempt_document(one, shown=one.attempt == self.attempt) for one in found]

    async def read_output(self, path: str, offset: int) -> OutputBlock | str:
        return await self._reader.read(path, offset)

    async def read_elsewhere(self, run_ids: Sequence[str]) -> dict[str, RunElsewhere] | Refused:
        self.sought += run_ids
        return self.unread or {run_id: self.elsewhere[run_id] for run_id in run_ids if run_id in self.elsewhere}

    async def cancel(
        self, run_ids: Sequence[str], *, now: bool, peer: Peer, elsewhere: Sequence[FlowRun] = ()
    ) -> list[Json]:
        self._host.note("cancel", {"runs": list(run_ids), "now": now}, peer)
        for run in elsewhere:
            self.put(run.id, name=run.name, **ended(api_state="CANCELLED", api_state_name="Cancelled"))
        for run_id in run_ids:
            if self._runs[run_id]["phase"] != "done":
                self.put(run_id, phase="killing" if now else "stopping", intent="cancel")
        return [dict(self._runs[run_id]) for run_id in run_ids]

    async def create(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        about = {"deployment": deployment_id, "parameters": parameters, "name": name, "tags": list(tags)}
        self._host.note("run", about, peer)
        (its,) = self._host.deployments.find(deployment_id)
        created = sum(verb == "run" for verb, _ in self._host.asked)
        run_id = f"00000000-0000-4000-8000-{created:012}"
        return self._host.refusal or _waiting(run_id, name or "lucky-crab", its["name"])

    async def execute(
        self, flow_run_id: str, *, again: bool, entrypoint: str | None = None, peer: Peer
    ) -> Json | Refused:
        verb = "execute --again" if again else "execute"
        self._host.note(f"{verb} {entrypoint}" if entrypoint else verb, flow_run_id, peer)
        return self._host.refusal or _waiting(flow_run_id, "given-run", None)


class FakeDeployments:
    """The deployments of a FakeHost."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._deployments: dict[str, Json] = {}

    def put(self, deployment_id: str, name: str, **changes: Json) -> None:
        self._deployments[deployment_id] = a_deployment(deployment_id, name, **changes)

    # --- Deployments ---

    def listing(self) -> list[Json]:
        return [dict(its) for its in self._deployments.values()]

    def find(self, ref: str) -> list[Json]:
        every = self.listing()
        exact = [its for its in every if ref in (its["id"], f"{its['flow']}/{its['name']}")]
        return exact or [its for its in every if its["name"] == ref]

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        self._host.note("pause" if paused else "resume", deployment_id, peer)
        if self._host.refusal:
            return self._host.refusal
        self._deployments[deployment_id]["state"] = "paused" if paused else "ready"
        return dict(self._deployments[deployment_id])

    async def change_source(self, ref: str, change: SourceChange, *, peer: Peer) -> Json | Refused:
        self._host.note(change.verb, [ref, change.commit, change.release], peer)
        return self._host.refusal or self.find(ref)[0]


class FakeLaunches:
    """The starts of a FakeHost; `plans` by run id, or by deployment as it was asked for."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.plans: dict[str, Json] = {}

    async def retry(self, run_id: str, *, peer: Peer) -> Json | Refused:
        self._host.note("retry", run_id, peer)
        return self._host.refusal or _waiting(run_id, "given-run", "nightly")

    async def plan_run(self, run_id: str) -> Json | Refused:
        return self.plans.get(run_id) or Refused(status=404, detail=f"there is no flow run {run_id} in Prefect")

    async def plan_deployment(self, ref: str) -> Json | Refused:
        return self.plans.get(ref) or Refused(status=404, detail=f"there is no deployment {ref!r}")


class FakeHost:
    """`asked` records every change and who asked for it; `refusal`, when set, answers every change that may refuse."""

    def __init__(self, *, outputs: Path) -> None:
        self.asked: list[tuple[str, Json]] = []
        self.peers: list[Peer] = []
        self.refusal: Refused | None = None
        self.well = True
        self.api_state, self.api_detail, self.maintenance = "ok", "connection refused", False
        self.problems: list[Json] = []
        self.waiting: list[Json] = []
        self.metrics_fail = False
        self.examined: Json = {"ok": True, "checks": []}
        self.runs = FakeRuns(self, outputs=outputs)
        self.deployments = FakeDeployments(self)
        self.launches = FakeLaunches(self)
        self.reloaded: Json = {
            "ok": True,
            "applied": True,
            "settled": True,
            "settings": [],
            "added": ["fresh"],
            "changed": ["nightly"],
            "removed": [],
            "unchanged": 3,
            "pools": {"added": ["etl"], "changed": [], "removed": ["old"], "unchanged": 1},
            "problems": [],
        }
        self.mute = False  # a reload does not end meanwhile
        self.prefect = FakePrefect(major=3)
        self.served_pools = {"etl"}
        self.pools = PoolsBackend(
            api=fake_api(self.prefect),
            call_api=ApiCaller(ambient=an_ambient(LogLines(), now=_now, clock=time.monotonic)),
            now=_now,
            served=lambda: self.served_pools,
        )
        self.service: Json = None  # None: an older daemon, which does not say
        self._drain: Json = None

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
                "maintenance": self.maintenance,
                "since": STAMP,
                "detail": "" if self.api_state == "ok" else self.api_detail,
                "requests_per_minute": 7,
                "stream": {"state": "live", "since": STAMP, "detail": "events arrive", "events": 0},
            },
            "draining": self._drain is not None,
            "drain": self._drain,
            "limits": {
                "runs": {"used": len(self.runs.listing(history=False)), "max": 10},
                "tags": {"gpu": {"used": 0, "max": 1}},
            },
            "runs": self.runs.listing(history=False),
            "waiting": self.waiting[:100],
            "waiting_total": len(self.waiting),
            "usage_at": STAMP,
            "deployments": self.deployments.listing(),
            "warm": [],
            "problems": list(self.problems),
        }

    def health(self) -> tuple[bool, Json]:
        checks = [{"name": "journal", "ok": self.well, "detail": None if self.well else "disk full"}]
        return self.well, {"ok": self.well, "checks": checks}

    async def doctor(self) -> Json:
        return self.examined

    def config(self) -> Json:
        return {"name": "build-07", "limits": {"runs": 10}, **({"service": self.service} if self.service else {})}

    async def metrics(self) -> str:
        if self.metrics_fail:
            raise RuntimeError("this is the fault under test")
        return "# TYPE runnerd_runs gauge\nrunnerd_runs 1\n"

    async def reload(self, *, inspect: bool, peer: Peer) -> Json:
        self.note("reload --inspect" if inspect else "reload", None, peer)
        while self.mute:
            await asyncio.sleep(0.05)
        return self.reloaded

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        self.note("drain", {"timeout_s": timeout_s, "reason": reason}, peer)
        self._drain = {"since": STAMP, "reason": reason, "until": None if timeout_s is None else LATER}
        return self.status()

    def undrain(self, *, peer: Peer) -> Json | Refused:
        self.note("undrain", None, peer)
        self._drain = None
        return self.status()

    def note(self, verb: str, about: Json, peer: Peer) -> None:
        self.asked.append((verb, about))
        self.peers.append(peer)


def _waiting(run_id: str, name: str, deployment: str | None) -> Json:
    absent = dict.fromkeys("phase pid pgid user start started_at memory_bytes cpu_seconds".split())
    state = {"api_state": "SCHEDULED", "api_state_name": "Scheduled"}
    return a_run(run_id, name=name, deployment=deployment, **absent, **state)


_IS_A_HOST: type[Host] = FakeHost  # for mypy: the fake keeps the shape of the real one
