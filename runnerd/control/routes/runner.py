"""The handlers of the paths that the web server of Prefect's Runner has, with its answers.

They are served over TCP only. Invariant: a problem has the member `detail`, as those of Prefect's have.
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.control.contract import Host, Peer, Refused
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.deployments import name_some
from runnerd.core.place import Json
from runnerd.core.strict_json import read_json

UNKNOWN = Peer(pid=0, uid=-1, gid=-1)  # a client that has shown the token


class RunnerRoutes:
    """Handles /health, /run_count, /shutdown and /deployment/{id}/run. `stop` stops the daemon as systemd does."""

    def __init__(self, *, host: Host, log: RequestLog, stop: Callable[[], None]) -> None:
        self._host = host
        self._log = log
        self._stop = stop

    async def get_health(self, request: Request) -> Reply:
        well, _ = self._host.health()
        if well:
            return json_reply({"message": "OK"})
        return json_reply({"message": "Runner is unresponsive at this time"}, status=503)

    async def get_run_count(self, request: Request) -> Reply:
        """Answer how many flow runs have a process here."""
        runs = self._host.runs.listing(history=False)
        return json_reply(sum(run["pid"] is not None and run["ended_at"] is None for run in runs))

    async def shut_down(self, request: Request) -> Reply:
        self._log.info("control", verb="shutdown", over="TCP")
        reply = json_reply({"message": "OK"})
        return Reply(body=reply.body, content_type=reply.content_type, then=self._stop)

    async def run_deployment(self, request: Request, deployment_id: str) -> Reply:
        """Create a run with the parameters in the body; of a deployment of this host, by its id."""
        parameters = _read_parameters(request.body)
        found = [one for one in self._host.deployments.find(deployment_id) if one["id"] == deployment_id]
        if not found:
            raise HttpProblem(404, "Not Found", kind="no-such-deployment")
        about = {"deployment": found[0]["name"], "parameters": name_some(parameters)}
        self._log.info("control", verb="run", over="TCP", **about)
        made = await self._host.runs.create(deployment_id, parameters=parameters, name=None, tags=(), peer=UNKNOWN)
        if isinstance(made, Refused):
            status = 400 if made.status == 422 else made.status
            raise HttpProblem(status, f"Error creating flow run: {made.detail}", kind="refused")
        return json_reply({"flow_run_id": made["id"]}, status=201)


def _read_parameters(body: bytes) -> dict[str, Json]:
    if not body:
        return {}
    try:
        parameters = read_json(body)
    except ValueError as error:
        raise HttpProblem(422, f"cannot read the body: {error}") from None
    if parameters is not None and not isinstance(parameters, dict):
        raise HttpProblem(422, "the body must be an object with the parameters of the run")
    return parameters or {}
