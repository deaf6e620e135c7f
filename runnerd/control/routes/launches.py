"""The handlers about starts of runs: the plan of a start, which starts nothing, and the retry of a run."""

from __future__ import annotations

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.change_log import log_change
from runnerd.control.routes.resolve import find_deployment, find_run, full_id, read_body, unwrap
from runnerd.core.json_words import show_value


class LaunchRoutes:
    """Handles the plans below /v1/runs and /v1/deployments, and /v1/runs/*/retry."""

    def __init__(self, *, host: Host, log: RequestLog, guard: Guard) -> None:
        self._host = host
        self._log = log
        self._guard = guard

    async def plan_run(self, request: Request, ref: str) -> Reply:
        return json_reply(unwrap(await self._host.launches.plan_run(self._run_id(ref))))

    async def plan_deployment(self, request: Request, ref: str) -> Reply:
        """Plan a start of a deployment: one of this host's files, or any in Prefect by its id or flow/name."""
        if self._host.deployments.find(ref):
            found = find_deployment(self._host, ref)
            if found["state"] == "invalid" and not found["id"]:
                raise HttpProblem(409, f"cannot plan {ref}: its files are wrong: {found['problem']}", kind="refused")
            ref = found["id"] or ref
        elif full_id(ref) is None and "/" not in ref:
            find_deployment(self._host, ref)  # raises HttpProblem 404
        return json_reply(unwrap(await self._host.launches.plan_deployment(ref)))

    async def retry_run(self, request: Request, ref: str) -> Reply:
        """Retry a run; one that is shared with other hosts, by its pool or because only Prefect has it, as an admin."""
        read_body(request, {})
        run_id = self._run_id(ref)
        known = self._host.runs.document(run_id)
        if known is None or known.get("pool") is not None:
            what = f"retry run {run_id}, which other hosts may be offered too"
            await self._guard.check(request.peer, Level.ADMIN, what)
        peer = log_change(self._log, request, "retry", run=run_id)
        return json_reply(unwrap(await self._host.launches.retry(run_id, peer=peer)), status=202)

    def _run_id(self, ref: str) -> str:
        """Return the id of the run that `ref` means: one of this host, or any by its full id. Raises HttpProblem."""
        if self._host.runs.find(ref):
            return str(find_run(self._host, ref)["id"])
        run_id = full_id(ref)
        if run_id is None:
            more = "a run of another host is named by its full id"
            raise HttpProblem(
                404, f"there is no run {show_value(ref)}; see runnerctl runs --all; {more}", kind="no-such-run"
            )
        return run_id
