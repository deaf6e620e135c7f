"""The handlers of runs: list them, read their output, cancel them, execute a given flow run."""

from __future__ import annotations

from collections.abc import Sequence

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, StreamReply, json_reply
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.change_log import log_change
from runnerd.control.routes.events import DONE
from runnerd.control.routes.output import follow_output, process_over
from runnerd.control.routes.resolve import (
    Found,
    find_deployment,
    find_run,
    find_run_anywhere,
    find_runs_anywhere,
    full_id,
    read_body,
    read_flag,
    read_number,
    unwrap,
)
from runnerd.core.json_words import show_value
from runnerd.core.numbers import ATTEMPT_MAX, OFFSET_MAX
from runnerd.core.place import Json
from runnerd.core.ranges import format_ranges

WAITING = "waiting"  # no phase and no state of Prefect: what the status document lists under this name


class RunRoutes:
    """Handles /v1/runs, /v1/cancel and /v1/execute."""

    def __init__(self, *, host: Host, log: RequestLog, guard: Guard) -> None:
        self._host = host
        self._log = log
        self._guard = guard

    async def list_runs(self, request: Request) -> Reply:
        await self._host.runs.measure()
        state, history = request.query.get("state"), read_flag(request, "history")
        if state is not None and state.lower() == WAITING:
            runs = self._host.runs.listing_waiting()
        else:
            runs = [run for run in self._host.runs.listing(history=history) if not state or _in_state(run, state)]
        if ref := request.query.get("deployment"):
            runs = self._of_deployment(runs, ref)
        return json_reply(runs)

    async def get_run(self, request: Request, ref: str) -> Reply:
        await self._host.runs.measure()
        document, _ = await find_run_anywhere(self._host, ref)
        return json_reply(document)

    async def stream_output(self, request: Request, ref: str) -> StreamReply:
        run, elsewhere = await find_run_anywhere(self._host, ref)
        run_id = run["id"]
        if elsewhere is not None:
            raise HttpProblem(404, _describe_unrun(run), kind="no-output")
        follow, attempt = read_flag(request, "follow"), read_number(request, "attempt", least=1, most=ATTEMPT_MAX)
        path = self._host.runs.output(run_id, attempt=attempt)
        first = await self._host.runs.read_output(path, 0) if path is not None else None
        if isinstance(first, str):
            raise HttpProblem(500, first, kind="no-output")
        there = first is not None and first.exists
        if attempt is not None and not there:
            await self._require_attempt(run, attempt)
        if not there and process_over(self._host, run_id, attempt=attempt):
            why = "it never started, or its output was removed"
            if bound := run.get("output_removed"):
                why = f"its output was removed: {bound} (runnerctl config show has the limit)"
            raise HttpProblem(410, f"there is no output of run {run_id}: {why}", kind="no-output")
        offset = read_number(request, "offset", least=0, most=OFFSET_MAX) or 0
        blocks = follow_output(self._host, run_id, attempt=attempt, offset=offset, follow=follow)
        return StreamReply(blocks=blocks, content_type="text/plain; charset=utf-8", live=follow)

    async def list_attempts(self, request: Request, ref: str) -> Reply:
        return json_reply(await self._attempts(find_run(self._host, ref)["id"]))

    async def _attempts(self, run_id: str) -> list[Json]:
        found = await self._host.runs.attempts(run_id)
        if isinstance(found, str):
            raise HttpProblem(500, found, kind="no-output")
        return found

    async def _require_attempt(self, run: Json, attempt: int) -> None:
        """Raise HttpProblem 404, which names the attempts with output, unless the attempt is the one under way."""
        if attempt == run.get("attempt") and not process_over(self._host, run["id"], attempt=attempt):
            return
        there = format_ranges(one["attempt"] for one in await self._attempts(run["id"]))
        named = f"there is output of attempt {there}" if there else "there is none of any attempt"
        detail = f"there is no output of attempt {attempt} of run {run['id']} on this host; {named}"
        raise HttpProblem(404, detail, kind="no-output")

    async def cancel_run(self, request: Request, ref: str) -> Reply:
        body = read_body(request, {"now": (bool,)})
        found = await find_runs_anywhere(self._host, [ref])
        documents = await self._cancel(request, found, now=bool(body["now"]))
        if not documents:
            raise HttpProblem(404, f"run {found.ids[0]} does not exist any more", kind="no-such-run")
        return json_reply(documents[0], status=202)

    async def cancel_runs(self, request: Request) -> Reply:
        """Cancel the runs named; when one of several names is wrong, cancel none of them."""
        body = read_body(request, {"runs": (list,), "deployment": (str,), "all": (bool,), "now": (bool,)})
        if sum(bool(body[member]) for member in ("runs", "deployment", "all")) != 1:
            raise HttpProblem(422, "cannot cancel: give exactly one of runs, deployment and all")
        if body["runs"]:
            found = await find_runs_anywhere(self._host, body["runs"])
        else:
            found = Found(self._live_ids(body["deployment"]))
        documents = await self._cancel(request, found, now=bool(body["now"])) if found.ids else []
        return json_reply({"runs": documents}, status=202)

    async def execute_run(self, request: Request) -> Reply:
        body = read_body(request, {"flow_run_id": (str,), "again": (bool,), "entrypoint": (str,)})
        flow_run_id, again, entrypoint = body["flow_run_id"], bool(body["again"]), body["entrypoint"] or None
        if not flow_run_id:
            raise HttpProblem(422, "cannot execute: flow_run_id is missing")
        if full_id(flow_run_id) is None:
            cause = "the full id of a flow run in Prefect is needed, not a name or a part of the id"
            raise HttpProblem(404, f"cannot execute {show_value(flow_run_id)}: {cause}")
        named = {"entrypoint": entrypoint} if entrypoint is not None else {}
        peer = log_change(self._log, request, "execute", run=flow_run_id, again=again, **named)
        started = await self._host.runs.execute(flow_run_id, again=again, entrypoint=entrypoint, peer=peer)
        return json_reply(unwrap(started), status=202)

    def _of_deployment(self, runs: Sequence[Json], ref: str) -> list[Json]:
        """Return the runs of a deployment, also of one that has left the configuration.

        Raises HttpProblem 404 when neither a deployment nor a run has this name.
        """
        if found := self._host.deployments.find(ref):
            wanted = {(d["flow"], d["name"]) for d in found}
            return [run for run in runs if (run["flow"], run["deployment"]) in wanted]
        named = [run for run in runs if ref in (run["deployment"], f"{run['flow']}/{run['deployment']}")]
        if not named:
            find_deployment(self._host, ref)  # raises HttpProblem 404
        return named

    def _live_ids(self, deployment_ref: str | None) -> list[str]:
        """Return the ids of the runs that live or wait here, of a deployment or all."""
        live = [run for run in self._host.runs.listing(history=False) if run["phase"] != DONE]
        live += self._host.runs.waiting()
        if deployment_ref:
            live = self._of_one_deployment(live, deployment_ref)
        return [run["id"] for run in live]

    def _of_one_deployment(self, runs: Sequence[Json], ref: str) -> list[Json]:
        """Return the runs of one deployment, also of one that has left the configuration.

        Raises HttpProblem 404 where there is none of this name, 409 where there are several.
        """
        if self._host.deployments.find(ref):
            find_deployment(self._host, ref)  # raises HttpProblem 409
        found = self._of_deployment(runs, ref)
        if len(names := {f"{run['flow']}/{run['deployment']}" for run in found}) > 1:
            detail = f"several deployments are named {ref!r}; use one of {', '.join(sorted(names))}"
            raise HttpProblem(409, detail, kind="ambiguous")
        return found

    async def _cancel(self, request: Request, found: Found, *, now: bool) -> list[Json]:
        await self._host.runs.measure()
        await self._check_shared(request, found)
        # Nothing may be awaited here: a claim that ends meanwhile can make a run one that its pool offers again.
        for run_id, one in found.elsewhere.items():
            if one.kept is not None:
                raise HttpProblem(409, f"cannot cancel run {one.run.name} ({run_id}): {one.kept}", kind="refused")
        peer = log_change(self._log, request, "cancel", runs=found.ids, now=now)
        runs = [one.run for one in found.elsewhere.values()]
        documents: list[Json] = unwrap(await self._host.runs.cancel(found.ids, now=now, peer=peer, elsewhere=runs))
        return documents

    async def _check_shared(self, request: Request, found: Found) -> None:
        """Raise HttpProblem 403 unless the client may cancel these runs also where pools still offer them.

        One check is enough: it is the same for all runs, and awaited only before it permits all of them.
        """
        elsewhere = [one.document for one in found.elsewhere.values()]
        for document in (*elsewhere, *map(self._host.runs.document, found.ids)):
            if document is not None and _is_shared(document):
                what = f"cancel run {document['id']}, which work pool {document['pool']} still offers to every host"
                return await self._guard.check(request.peer, Level.ADMIN, what)


def _is_shared(run: Json) -> bool:
    """Return whether no host has the run yet, and every host that serves its work pool may get it."""
    return run["phase"] is None and run.get("pool") is not None


def _describe_unrun(run: Json) -> str:
    """Say why there is no output of a run that this host does not have."""
    wait = f", and waits: {run['waiting']}" if run["waiting"] else ""
    return f"run {run['name']} ({run['id']}) has not run on this host: it is {run['api_state_name']} in Prefect{wait}"


def _in_state(run: Json, state: str) -> bool:
    """Return whether `state` is the run's phase, or the type or name of its Prefect state, ignoring case."""
    words = (run["phase"], run["api_state"], run.get("api_state_name"))
    return state.lower() in (str(word).lower() for word in words if word is not None)
