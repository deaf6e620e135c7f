"""The handlers of deployments: list them, run one now, pause and resume its schedules, pull and revert its source."""

from __future__ import annotations

from runnerd.control.contract import Host, SourceChange
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.change_log import log_change
from runnerd.control.routes.resolve import find_deployment, read_body, unwrap
from runnerd.core.json_words import shorten
from runnerd.core.place import Json

LOGGED_MAX = 50  # parameters of a run whose names are in the log


class DeploymentRoutes:
    """Handles /v1/deployments."""

    def __init__(self, *, host: Host, log: RequestLog) -> None:
        self._host = host
        self._log = log

    async def list_deployments(self, request: Request) -> Reply:
        return json_reply(self._host.deployments.listing())

    async def get_deployment(self, request: Request, ref: str) -> Reply:
        return json_reply(find_deployment(self._host, ref))

    async def run_deployment(self, request: Request, ref: str) -> Reply:
        body = read_body(request, {"parameters": (dict,), "name": (str,), "tags": (list,)})
        deployment = find_deployment(self._host, ref)
        parameters = body["parameters"] or {}
        self._require_registered(deployment, "run")
        # Log only the names of the parameters: the values may be secrets.
        peer = log_change(self._log, request, "run", deployment=deployment["name"], parameters=name_some(parameters))
        created = await self._host.runs.create(
            deployment["id"], parameters=parameters, name=body["name"] or None, tags=body["tags"] or (), peer=peer
        )
        return json_reply(unwrap(created), status=201)

    async def pause_deployment(self, request: Request, ref: str) -> Reply:
        return await self._set_paused(request, ref, paused=True)

    async def resume_deployment(self, request: Request, ref: str) -> Reply:
        return await self._set_paused(request, ref, paused=False)

    async def pull_source(self, request: Request, ref: str) -> Reply:
        read_body(request, {})
        return await self._change_source(request, ref, SourceChange(verb="pull"))

    async def revert_source(self, request: Request, ref: str) -> Reply:
        body = read_body(request, {"commit": (str,), "release": (bool,)})
        if body["commit"] is not None and body["release"]:
            raise HttpProblem(422, "commit and release exclude each other")
        change = SourceChange(verb="revert", commit=body["commit"], release=bool(body["release"]))
        return await self._change_source(request, ref, change)

    async def _change_source(self, request: Request, ref: str, change: SourceChange) -> Reply:
        deployment = find_deployment(self._host, ref)
        what = {"commit": change.commit, "release": change.release or None}
        peer = log_change(self._log, request, change.verb, deployment=deployment["name"], **what)
        return json_reply(unwrap(await self._host.deployments.change_source(ref, change, peer=peer)))

    async def _set_paused(self, request: Request, ref: str, *, paused: bool) -> Reply:
        read_body(request, {})
        deployment = find_deployment(self._host, ref)
        verb = "pause" if paused else "resume"
        self._require_registered(deployment, verb)
        peer = log_change(self._log, request, verb, deployment=deployment["name"])
        return json_reply(unwrap(await self._host.deployments.set_paused(deployment["id"], paused, peer=peer)))

    def _require_registered(self, deployment: Json, verb: str) -> None:
        """Raise HttpProblem 409, with the cause, for a deployment that is not registered in Prefect."""
        if deployment["id"]:
            return
        api = self._host.status()["api"]
        cause = f"the API is {api['state']}: {api['detail']}" if api["state"] != "ok" else "this is under way"
        detail = (
            f"cannot {verb} {deployment['name']}: it is not registered in Prefect: {deployment['problem'] or cause}"
        )
        raise HttpProblem(409, detail, kind="refused")


def name_some(parameters: Json) -> list[str]:
    """List the names of parameters for the log, the first of many and the start of each."""
    names = [shorten(name) for name in sorted(parameters)]
    return [*names[:LOGGED_MAX], f"and {len(names) - LOGGED_MAX} more"] if len(names) > LOGGED_MAX else names
