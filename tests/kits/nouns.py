"""Small nouns with defaults, the real API client in front of a FakePrefect, and a log that can be read."""

from __future__ import annotations

import io
import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from runnerd.core.machine import RunRecord
from runnerd.core.notices import Notices
from runnerd.core.place import Place
from runnerd.core.prefect import FlowRun
from runnerd.core.settings import (
    ApiSettings,
    Deployment,
    HttpSettings,
    LateSettings,
    LimitSettings,
    RunSettings,
    Settings,
    StopSettings,
    WarmSettings,
)
from runnerd.log.log import Log, make_log
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.parse import parse_flow_run
from tests.kits.fakes.fake_prefect import FakePrefect

Json = Any
URL = "http://prefect.test/api"
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def an_id(letter: str) -> str:
    """An id of Prefect's, the same one for the same letter."""
    return str(uuid.UUID(int=ord(letter)))


def a_deployment(name: str = "nightly", *, run: Mapping[str, Json] | None = None, **changes: Json) -> Deployment:
    """`run` are keys of its run: section."""
    settings = RunSettings(**{"python": sys.executable, "working_directory": "/srv/flows", **(run or {})})
    defaults: dict[str, Json] = {
        "entrypoint": f"{name}.py:flow",
        "run": settings,
        "place": Place("/etc/runnerd/conf.d/10.yaml", 3, 5),
    }
    return Deployment(name=name, **{**defaults, **changes})


def a_record(run_id: str = "", **changes: Json) -> RunRecord:
    run_id = run_id or str(uuid.uuid4())
    defaults: dict[str, Json] = {
        "name": f"run-{run_id[:4]}",
        "deployment_id": "d-1",
        "deployment": "nightly",
        "flow": "etl",
        "transition_id": "t-1",
        "created_at": NOON,
    }
    return RunRecord(id=run_id, **{**defaults, **changes})


def settings(
    *,
    runs: int = 10,
    start_rate: float = 1000.0,
    tags: Mapping[str, int] | None = None,
    poll_interval_s: float = 10.0,
    poll_burst_per_s: float = 2.0,
    prefetch_s: float = 10.0,
    late: LateSettings = LateSettings(),  # noqa: B008 - frozen
    then: Json = "cancel",
    http: HttpSettings = HttpSettings(),  # noqa: B008 - frozen
    warm: WarmSettings = WarmSettings(),  # noqa: B008 - frozen
    notices: Notices | None = None,
) -> Settings:
    return Settings(
        name="host-1",
        api=ApiSettings(
            url=URL, poll_interval_s=poll_interval_s, poll_burst_per_s=poll_burst_per_s, prefetch_s=prefetch_s
        ),
        limits=LimitSettings(runs=runs, start_rate_per_s=start_rate, tags=tags or {}),
        late=late,
        stop=StopSettings(then=then),
        http=http,
        warm=warm,
        notices=notices or {},
    )


class UnclosableClient(httpx.AsyncClient):
    """After several failures the transport closes its client and opens another; here there is only this one."""

    async def aclose(self) -> None:
        return


def fake_api(
    prefect: FakePrefect,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_left_out: Callable[[str], None] | None = None,
) -> PrefectApi:
    """The real client in front of a FakePrefect, without a socket."""
    return PrefectApi(
        url=URL,
        credentials=Credentials,
        headers={},
        timeout_s=60,
        now=now,
        client=UnclosableClient(transport=prefect.transport(), verify=False),
        on_left_out=on_left_out,
    )


def flow_run(prefect: FakePrefect, run_id: str) -> FlowRun:
    """A run of FakePrefect's as our client would have read it."""
    return parse_flow_run(prefect.runs[run_id])


class LogLines(io.StringIO):
    """What was logged, as documents."""

    def all(self) -> list[dict[str, Json]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def events(self, *levels: str) -> list[str]:
        return [line["event"] for line in self.all() if not levels or line["level"] in levels]


def log_to(lines: LogLines) -> Log:
    return make_log(log_format="json", journald=False, stream=lines)


def copied(prefect: FakePrefect) -> list[str]:
    """What was asked so far, and from here on anew."""
    asked, prefect.asked[:] = list(prefect.asked), []
    return asked


def make_sparse(path: Path, size: int = 64 * 2**30) -> None:
    """A file of so many bytes that takes no room."""
    path.touch()
    os.truncate(path, size)
