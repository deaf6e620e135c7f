"""Makes the calls to Prefect's API, as coroutines that take and return the values of core/prefect.py.

Every call may raise ApiAway, ApiDenied or ApiRejected, and makes one request: the caller decides when to repeat it.
All calls are safe to repeat: states carry a transition id, deployments are upserted, runs take an idempotency key.
An id that is not a UUID belongs to no object, and is answered without a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import httpx

from runnerd.core.place import Json
from runnerd.core.prefect import RESCHEDULE, ApiHealth, ApiState, DeploymentInfo, FlowRun, StateType, Verdict
from runnerd.prefect_api.answers import (
    Answer,
    ApiRefusal,
    Claim,
    ClaimOutcome,
    DeploymentBody,
    Page,
    ServerInfo,
    Skipped,
)
from runnerd.prefect_api.applying import DeploymentApplier
from runnerd.prefect_api.clock import Skew
from runnerd.prefect_api.connections import is_cloud, open_client
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.dialect import server_info, state_body
from runnerd.prefect_api.due_runs import DueRuns
from runnerd.prefect_api.failure_words import REASON_MAX, server_words
from runnerd.prefect_api.paging import Pages
from runnerd.prefect_api.parse import parse_deployment, parse_flow_run, parse_state, parse_version
from runnerd.prefect_api.pools import PoolsApi
from runnerd.prefect_api.reading import ABSENT, PAGE, REFUSED, Reader, in_path, refused
from runnerd.prefect_api.run_queries import RunQueries
from runnerd.prefect_api.schedule_changes import SentSchedule
from runnerd.prefect_api.transport import Transport
from runnerd.prefect_api.validation_words import shorten
from runnerd.prefect_api.values import Unreadable, is_uuid, needed_text, read_wait_s

__all__ = [
    "PAGE",
    "Answer",
    "ApiRefusal",
    "Claim",
    "ClaimOutcome",
    "DeploymentBody",
    "PrefectApi",
    "ServerInfo",
    "Skipped",
]

LEASE_S, ENDED = 300, frozenset({404, 410})  # Prefect's own lease


class PrefectApi:
    """Prefect's API at one URL; `pools`, `queries`, `applier`: the calls about pools, runs of others, deployments."""

    def __init__(
        self,
        *,
        url: str,
        credentials: Callable[[], Credentials],
        headers: Mapping[str, str],
        timeout_s: float,
        now: Callable[[], datetime],
        client: httpx.AsyncClient | None = None,
        on_health: Callable[[ApiHealth], None] | None = None,
        on_left_out: Callable[[str], None] | None = None,
        read_again: Callable[[], Credentials] | None = None,
    ) -> None:
        """`credentials` is called while none are known or they are outdated, `read_again` when the API denies access.

        Without `read_again`, `credentials` is called then too. `client` is for tests, and closed by `close`.
        `on_left_out` is called with words for each item that is left out because it is unreadable.
        """
        self.url = url
        self._cloud = is_cloud(httpx.URL(url))
        self.transport = Transport(
            url=url,
            credentials=credentials,
            read_again=read_again,
            headers=headers,
            timeout_s=timeout_s,
            now=now,
            open_client=lambda at: client or open_client(at, timeout_s=timeout_s),
            on_health=on_health,
        )
        self.known_server: ServerInfo | None = None  # as it was last read
        self._read_in_epoch = -1
        self._reader = Reader(self.transport, note_left_out=on_left_out)
        self.applier = DeploymentApplier(transport=self.transport, reader=self._reader)
        pages = Pages(transport=self.transport, reader=self._reader)
        self._due_runs = DueRuns(pages=pages, reader=self._reader, now=now)
        self.queries = RunQueries(transport=self.transport, reader=self._reader)
        self.pools = PoolsApi(transport=self.transport, reader=self._reader, pages=pages, server=self.server)

    @property
    def health(self) -> ApiHealth:
        """Whether the API answers, by the latest requests."""
        return self.transport.health

    @property
    def skew(self) -> Skew | None:
        """How far this host's clock is from the API's; None until an answer had a Date."""
        return self.transport.skew

    @property
    def skipped(self) -> Skipped:
        """How many items of answers could not be read so far."""
        return self._reader.skipped

    async def close(self) -> None:
        """Close all connections."""
        await self.transport.close()

    async def server(self) -> ServerInfo:
        """Read the server's version: once, and again after each outage, since an upgrade may be its cause."""
        if self.known_server is None or self._read_in_epoch != self.transport.epoch:
            self.known_server = await self._read_server()
            self._read_in_epoch = self.transport.epoch
        return self.known_server

    async def check(self) -> None:
        """Make a small request that every key may make, so that `health` says how the API is.

        A self-hosted server answers `/health` whatever the key; Cloud has no version, and Prefect's own client asks it
        for its health.
        """
        await self.transport.request("GET", "/health" if self._cloud else "/admin/version", sure=True)

    async def _read_server(self) -> ServerInfo:
        if self._cloud:
            return ServerInfo(version="cloud", major=3)
        reply = await self.transport.request("GET", "/admin/version", sure=True)
        return server_info(self._reader.read("the server's version", reply.data, parse_version))

    # --- flow runs ------------------------------------------------------------------------------------------

    async def scheduled_runs(
        self, *, deployment_ids: Sequence[str], before: datetime, limit: int | None = None
    ) -> Page:
        """List the runs of these deployments that fall due before `before`, the earliest first, at most 200."""
        return await self._due_runs.list(deployment_ids, before=before, limit=limit)

    async def claim(self, run_id: str, *, transition_id: str) -> Claim:
        """Propose PENDING. The claim is won if the answer has our state, whatever its `status` field says."""
        answer = await self.propose(run_id, Verdict(type=StateType.PENDING), transition_id=transition_id)
        if answer.gone:
            return Claim(outcome=ClaimOutcome.GONE, reason=answer.reason)
        state = answer.state
        # By the id a repeat of our claim differs from another host's claim; by the type a run that the server
        # rescheduled instead is not started.
        ours = state is not None and state.type is StateType.PENDING and state.transition_id == transition_id
        outcome = ClaimOutcome.WON if ours else ClaimOutcome.LOST
        return Claim(outcome=outcome, state=state, reason=answer.reason)

    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str, force: bool = False) -> Answer:
        """Propose a state. The caller reads the state first: the server has few rules against it, with force fewer."""
        if not is_uuid(run_id):
            return Answer(accepted=False, gone=True, reason=f"{run_id!r} is not the id of a flow run")
        body = state_body(run_id, verdict, transition_id, force=force)
        reply = await self.transport.request("POST", f"/flow_runs/{run_id}/set_state", body=body, values=ABSENT)
        if reply.status == 404:
            return Answer(accepted=False, gone=True, reason=server_words(reply.data))
        return self._reader.read(
            "an answer to a proposed state", reply.data, lambda data: _parse_answer(data, verdict.type, transition_id)
        )

    async def read_run(self, run_id: str) -> FlowRun | None:
        """Read one flow run; None when there is none (any more)."""
        if not is_uuid(run_id):
            return None
        reply = await self.transport.request("GET", f"/flow_runs/{run_id}", values=ABSENT, sure=True)
        return None if reply.status == 404 else self._reader.read("a flow run", reply.data, parse_flow_run)

    async def release_retry(self, run: FlowRun) -> None:
        """Let any process go on with a run whose retry is reserved for the process that failed, once that is dead."""
        body = {"empirical_policy": {**run.policy, "retry_type": RESCHEDULE}}
        await self.transport.request("PATCH", f"/flow_runs/{run.id}", body=body, values=ABSENT)

    async def renew_lease(self, lease_id: str) -> bool:
        """Renew a lease of a deployment's concurrency limit for five minutes; False when it has ended."""
        place = in_path(lease_id)
        if place is None:
            return False
        path, body = f"/v2/concurrency_limits/leases/{place}/renew", {"lease_duration": LEASE_S}
        reply = await self.transport.request("POST", path, body=body, values=ENDED)
        return reply.status < 400

    async def history(self, run_id: str) -> list[ApiState]:
        """List every state that the run has had, the oldest first; empty when there is no such run (any more)."""
        if not is_uuid(run_id):
            return []
        path = f"/flow_run_states/?flow_run_id={run_id}"
        reply = await self.transport.request("GET", path, values=ABSENT, sure=True)
        if reply.status == 404:
            return []
        return self._reader.items("a flow run's states", reply, parse_state)

    async def runs_of(self, run_ids: Sequence[str], *, states: Iterable[StateType]) -> list[FlowRun]:
        """List those of these runs that are in one of these states now."""
        kinds = {"type": {"any_": [state.value for state in states]}}

        def choose(ids: Sequence[str]) -> dict[str, Json]:
            return {"flow_runs": {"id": {"any_": list(ids)}, "state": kinds}}

        return await self._reader.filtered("flow runs", "/flow_runs/filter", run_ids, choose, parse_flow_run)

    async def create_run(
        self,
        deployment_id: str,
        *,
        parameters: Mapping[str, Json],
        name: str | None = None,
        tags: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> FlowRun | ApiRefusal:
        """Create a run that is due now; with an idempotency key used before, return the run created then."""
        if not is_uuid(deployment_id):
            return ApiRefusal(reason=f"{deployment_id!r} is not the id of a deployment")
        body: dict[str, Json] = {"parameters": dict(parameters), "tags": list(tags)}
        if name is not None:
            body["name"] = name
        if idempotency_key is not None:
            body["idempotency_key"] = idempotency_key
        path = f"/deployments/{deployment_id}/create_flow_run"
        reply = await self.transport.request("POST", path, body=body, values=REFUSED)
        if reply.status >= 400:
            return refused(reply)
        return self._reader.read("a new flow run", reply.data, parse_flow_run)

    # --- flows and deployments ------------------------------------------------------------------------------

    async def ensure_flow(self, name: str, tags: Sequence[str] = ()) -> str:
        """Create the flow of this name if it is missing; return its id."""
        return (await self.applier.ensure_flow(name, tags)).id

    async def read_flow(self, flow_id: str) -> str | None:
        """Read the flow's name; None when there is no such flow."""
        if not is_uuid(flow_id):
            return None
        reply = await self.transport.request("GET", f"/flows/{flow_id}", values=ABSENT, sure=True)
        if reply.status == 404:
            return None
        return self._reader.read("a flow", reply.data, lambda data: needed_text(data, "name"))

    async def apply_deployment(
        self,
        wanted: DeploymentBody,
        *,
        flow_id: str,
        paused: bool | None = None,
        sent: Sequence[SentSchedule] = (),
    ) -> DeploymentInfo:
        """Create or update a deployment; the server then deletes the runs it had scheduled ahead.

        `paused` None leaves an existing one as it is. `sent` are the schedules that this host sent last; of them those
        not wanted any more are deleted, and the schedules of others stay.
        """
        return await self.applier.apply(wanted, flow_id=flow_id, paused=paused, sent=sent)

    async def read_deployments(self, ids: Sequence[str]) -> list[DeploymentInfo]:
        """Read those of these deployments that exist."""

        def choose(some: Sequence[str]) -> dict[str, Json]:
            return {"deployments": {"id": {"any_": list(some)}}}

        return await self._reader.filtered("deployments", "/deployments/filter", ids, choose, parse_deployment)

    async def find_deployment(self, flow_name: str, name: str) -> DeploymentInfo | None:
        """Read the deployment `flow_name/name`; None when there is none."""
        place = in_path(flow_name, name)
        if place is None:
            return None
        reply = await self.transport.request("GET", f"/deployments/name/{place}", values=ABSENT)
        return None if reply.status == 404 else self._reader.read("a deployment", reply.data, parse_deployment)

    async def pause_deployment(self, deployment_id: str) -> bool:
        """Stop a deployment's schedules, which deletes the runs scheduled ahead; False: no such deployment."""
        return await self._set_paused(deployment_id, paused=True)

    async def resume_deployment(self, deployment_id: str) -> bool:
        """Start a deployment's schedules again; False: no such deployment."""
        return await self._set_paused(deployment_id, paused=False)

    async def _set_paused(self, deployment_id: str, *, paused: bool) -> bool:
        """Change the deployment, not its schedules.

        The routes made for this are the second choice: in 2.20 they switch a single schedule too, which would lose
        that a user had switched it off, and refuse a deployment with several. PATCH checks the parameters, though.
        """
        if not is_uuid(deployment_id):
            return False
        path = f"/deployments/{deployment_id}"
        reply = await self.transport.request("PATCH", path, body={"paused": paused}, values=REFUSED)
        if reply.status in (409, 422):
            action = "/pause_deployment" if paused else "/resume_deployment"
            return await self._change_deployment("POST", deployment_id, action)
        return reply.status != 404

    async def delete_deployment(self, deployment_id: str) -> bool:
        """Delete a deployment with its scheduled runs; False: no such deployment."""
        return await self._change_deployment("DELETE", deployment_id, "")

    async def _change_deployment(self, method: str, deployment_id: str, action: str) -> bool:
        if not is_uuid(deployment_id):
            return False
        reply = await self.transport.request(method, f"/deployments/{deployment_id}{action}", values=ABSENT)
        return reply.status != 404


def _parse_answer(data: Json, proposed: StateType, transition_id: str) -> Answer:
    if not isinstance(data, dict) or not isinstance(data.get("status"), str):
        raise Unreadable("no status")
    state: ApiState | None = parse_state(data["state"]) if data.get("state") is not None else None
    details = data.get("details")
    details = details if isinstance(details, dict) else {}
    reason, delay = details.get("reason"), details.get("delay_seconds")
    # After a lost answer we repeat the request, and the server rejects it because the state is there already.
    repeated = state is not None and state.type is proposed and state.transition_id == transition_id
    return Answer(
        accepted=data["status"] == "ACCEPT" or repeated,
        state=state,
        reason=shorten(reason, REASON_MAX) if isinstance(reason, str) else None,
        wait_s=read_wait_s(delay) if data["status"] == "WAIT" else None,
    )
