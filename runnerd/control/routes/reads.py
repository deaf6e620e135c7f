"""The GET routes, except those of work pools."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, StreamReply, json_reply
from runnerd.control.http.problem import Problem
from runnerd.control.http.router import Route
from runnerd.control.routes.events import follow_runs
from runnerd.control.routes.output import follow_output, process_over
from runnerd.control.routes.resolve import flag, number, the_deployment, the_run
from runnerd.core.place import Json
from runnerd.output.output_file import is_readable


class Reads:
    """The GET routes of the host, of its runs and of its deployments."""

    def __init__(self, *, host: Host) -> None:
        self._host = host

    def routes(self) -> Sequence[Route]:
        return (
            *self.public_routes(),
            Route("GET", "/v1/status", self._status),
            Route("GET", "/v1/doctor", self._doctor),
            Route("GET", "/v1/runs", self._runs),
            Route("GET", "/v1/runs/*", self._run),
            Route("GET", "/v1/runs/*/logs", self._logs),
            Route("GET", "/v1/deployments", self._deployments),
            Route("GET", "/v1/deployments/*", self._deployment),
            Route("GET", "/v1/config", self._config),
            Route("GET", "/v1/events", self._events),
        )

    def public_routes(self) -> Sequence[Route]:
        """Return the routes that the TCP port serves too."""
        return (Route("GET", "/v1/health", self._health), Route("GET", "/v1/metrics", self._metrics))

    async def _status(self, request: Request) -> Reply:
        return json_reply(self._host.status())

    async def _doctor(self, request: Request) -> Reply:
        return json_reply(await self._host.doctor())

    async def _health(self, request: Request) -> Reply:
        well, document = self._host.health()
        return json_reply(document, status=200 if well else 503)

    async def _config(self, request: Request) -> Reply:
        return json_reply(self._host.config())

    async def _metrics(self, request: Request) -> Reply:
        text = await self._host.metrics()
        return Reply(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")

    async def _runs(self, request: Request) -> Reply:
        runs = self._host.runs.listing(history=flag(request, "history"))
        if state := request.query.get("state"):
            runs = [run for run in runs if _in_state(run, state)]
        if ref := request.query.get("deployment"):
            runs = self._of_deployment(runs, ref)
        return json_reply(runs)

    async def _run(self, request: Request, ref: str) -> Reply:
        return json_reply(the_run(self._host, ref))

    async def _logs(self, request: Request, ref: str) -> StreamReply:
        run_id = the_run(self._host, ref)["id"]
        follow = flag(request, "follow")
        path = self._host.runs.output(run_id)
        try:
            there = path is not None and await asyncio.to_thread(is_readable, path)
        except OSError as error:
            detail = f"runnerd cannot read {path}: {error.strerror}"
            raise Problem(500, detail, kind="no-output") from None
        if not there and process_over(self._host, run_id):
            raise Problem(410, f"no output of run {run_id} is kept", kind="no-output")
        blocks = follow_output(self._host, run_id, offset=number(request, "offset"), follow=follow)
        return StreamReply(blocks=blocks, content_type="text/plain; charset=utf-8", live=follow)

    async def _deployments(self, request: Request) -> Reply:
        return json_reply(self._host.deployments.listing())

    async def _deployment(self, request: Request, ref: str) -> Reply:
        return json_reply(the_deployment(self._host, ref))

    async def _events(self, request: Request) -> StreamReply:
        ref = request.query.get("run")
        run_id = self._run_id(ref) if ref else None
        blocks = follow_runs(self._host, run_id)
        return StreamReply(blocks=blocks, content_type="application/x-ndjson", live=True)

    def _run_id(self, ref: str) -> str:
        """Return the id of the run that `ref` means; a full id needs no run yet, which may have just been created."""
        if not self._host.runs.find(ref):
            with suppress(ValueError):
                return str(uuid.UUID(ref))
        run_id: str = the_run(self._host, ref)["id"]
        return run_id

    def _of_deployment(self, runs: Sequence[Json], ref: str) -> list[Json]:
        """Return the runs of a deployment, also of one that has left the configuration.

        Raises Problem 404 when neither a deployment nor a run has this name.
        """
        if here := self._host.deployments.find(ref):
            wanted = {(d["flow"], d["name"]) for d in here}
            return [run for run in runs if (run["flow"], run["deployment"]) in wanted]
        mine = [run for run in runs if ref in (run["deployment"], f"{run['flow']}/{run['deployment']}")]
        if not mine:
            the_deployment(self._host, ref)  # raises Problem 404
        return mine


def _in_state(run: Json, state: str) -> bool:
    """Return whether `state` is the run's phase, or the type or name of its Prefect state, ignoring case."""
    words = (run["phase"], run["api_state"], run.get("api_state_name"))
    return state.lower() in (str(word).lower() for word in words if word is not None)
