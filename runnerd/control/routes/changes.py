"""The POST routes, except those of work pools. The peer that requests a change is logged before the change is made.

Invariant: no change is made before the runs of the previous daemon are adopted. Until then the daemon knows no runs, so
a cancellation would be answered with success and cancel nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runnerd.control.contract import Host, Peer
from runnerd.control.http.exchange import Reply, Request, StreamReply, json_reply
from runnerd.control.http.listener import Log
from runnerd.control.http.problem import Problem
from runnerd.control.http.router import Answer, Route
from runnerd.control.routes.events import DONE
from runnerd.control.routes.resolve import body_of, granted, strings, the_deployment, the_run
from runnerd.core.place import Json

SECONDS_MAX = 10 * 365 * 86400.0
ADOPTION_LIMIT_S = 15.0  # below the client's limit: a client that gave up must not have its change made afterwards


class Changes:
    """The POST routes of the host, of its runs and of its deployments."""

    def __init__(self, *, host: Host, log: Log) -> None:
        self._host = host
        self._log = log

    def routes(self) -> Sequence[Route]:
        answers: dict[str, Answer] = {
            "/v1/cancel": self._cancel,
            "/v1/runs/*/cancel": self._cancel_one,
            "/v1/deployments/*/run": self._run,
            "/v1/deployments/*/pause": self._pause,
            "/v1/deployments/*/resume": self._resume,
            "/v1/execute": self._execute,
            "/v1/reload": self._reload,
            "/v1/drain": self._drain,
            "/v1/undrain": self._undrain,
        }
        return [Route("POST", path, self._once_adopted(answer)) for path, answer in answers.items()]

    def _once_adopted(self, answer: Answer) -> Answer:
        async def answer_then(request: Request, *variables: str) -> Reply | StreamReply:
            try:
                async with asyncio.timeout(ADOPTION_LIMIT_S):
                    await self._host.runs.adopted()
            except TimeoutError:
                what = "runnerd is starting and does not know its runs yet; see runnerctl health, and ask again"
                raise Problem(503, what, headers={"Retry-After": "1"}) from None
            return await answer(request, *variables)

        return answer_then

    async def _cancel_one(self, request: Request, ref: str) -> Reply:
        asked = body_of(request, {"now": (bool,)})
        run = the_run(self._host, ref)
        documents = await self._cancel_runs(request, [run["id"]], now=bool(asked["now"]))
        if not documents:
            raise Problem(404, f"run {run['id']} is gone", kind="no-such-run")
        return json_reply(documents[0], status=202)

    async def _cancel(self, request: Request) -> Reply:
        """Cancel the runs named; when one of several names is wrong, cancel none of them."""
        asked = body_of(request, {"runs": (list,), "deployment": (str,), "all": (bool,), "now": (bool,)})
        if sum(bool(asked[member]) for member in ("runs", "deployment", "all")) != 1:
            raise Problem(422, "name what to cancel: one of runs, deployment and all")
        run_ids = self._to_cancel(strings(asked["runs"], "runs"), asked["deployment"])
        documents = await self._cancel_runs(request, run_ids, now=bool(asked["now"])) if run_ids else []
        return json_reply({"runs": documents}, status=202)

    def _to_cancel(self, refs: Sequence[str], deployment: str | None) -> list[str]:
        if refs:
            return list(dict.fromkeys(the_run(self._host, ref)["id"] for ref in refs))
        live = [run for run in self._host.runs.listing(history=False) if run["phase"] != DONE]
        if deployment:
            which = the_deployment(self._host, deployment)
            key = (which["flow"], which["name"])
            live = [run for run in live if (run["flow"], run["deployment"]) == key]
        return [run["id"] for run in live]

    async def _cancel_runs(self, request: Request, run_ids: Sequence[str], *, now: bool) -> list[Json]:
        peer = self._asked(request, "cancel", runs=list(run_ids), now=now)
        return await self._host.runs.cancel(run_ids, now=now, peer=peer)

    async def _run(self, request: Request, ref: str) -> Reply:
        asked = body_of(request, {"parameters": (dict,), "name": (str,), "tags": (list,)})
        tags = strings(asked["tags"], "tags")
        which = the_deployment(self._host, ref)
        # Log only the names of the parameters: the values may be secrets.
        parameters = asked["parameters"] or {}
        peer = self._asked(request, "run", deployment=which["name"], parameters=sorted(parameters))
        created = await self._host.runs.create(
            which["id"], parameters=parameters, name=asked["name"] or None, tags=tags, peer=peer
        )
        return json_reply(granted(created), status=201)

    async def _execute(self, request: Request) -> Reply:
        flow_run_id = body_of(request, {"flow_run_id": (str,)})["flow_run_id"]
        if not flow_run_id:
            raise Problem(422, "name the flow run: flow_run_id")
        peer = self._asked(request, "execute", run=flow_run_id)
        return json_reply(granted(await self._host.runs.execute(flow_run_id, peer=peer)), status=202)

    async def _pause(self, request: Request, ref: str) -> Reply:
        return await self._set_paused(request, ref, paused=True)

    async def _resume(self, request: Request, ref: str) -> Reply:
        return await self._set_paused(request, ref, paused=False)

    async def _set_paused(self, request: Request, ref: str, *, paused: bool) -> Reply:
        body_of(request, {})
        which = the_deployment(self._host, ref)
        peer = self._asked(request, "pause" if paused else "resume", deployment=which["name"])
        return json_reply(granted(await self._host.deployments.set_paused(which["id"], paused, peer=peer)))

    async def _reload(self, request: Request) -> Reply:
        body_of(request, {})
        return json_reply(await self._host.reload(peer=self._asked(request, "reload")))

    async def _drain(self, request: Request) -> Reply:
        asked = body_of(request, {"timeout_s": (float, int), "reason": (str,)})
        timeout_s, reason = asked["timeout_s"], asked["reason"] or None
        if timeout_s is not None and not 0 <= timeout_s <= SECONDS_MAX:
            raise Problem(422, "'timeout_s' must be a number of seconds from 0 on")
        peer = self._asked(request, "drain", timeout_s=timeout_s, reason=reason)
        timeout_s = None if timeout_s is None else float(timeout_s)
        return json_reply(self._host.drain(timeout_s=timeout_s, reason=reason, peer=peer))

    async def _undrain(self, request: Request) -> Reply:
        body_of(request, {})
        return json_reply(self._host.undrain(peer=self._asked(request, "undrain")))

    def _asked(self, request: Request, verb: str, **about: object) -> Peer:
        return asked(self._log, request, verb, **about)


def asked(log: Log, request: Request, verb: str, **about: object) -> Peer:
    """Log the peer and the requested change, and return the peer. Raises Problem 403 over TCP, which has no peer."""
    peer = request.peer
    if peer is None:
        raise Problem(403, "runnerd only takes changes over its Unix socket")
    log.info("control", verb=verb, uid=peer.uid, gid=peer.gid, pid=peer.pid, **about)
    return peer
