"""Claims flow runs that are requested by their ids: of what this host serves, and any other as a guest.

Invariants: a run of a deployment or pool of this host is started as that says, unless code is named with the request;
every other run, and all named code, is started by the host's own `run:`, and then only for a client that may run code
as that user (ADR 40).
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, replace

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.contract import Peer, Refused
from runnerd.core.guests import Guest
from runnerd.core.prefect import ApiState, FlowRun, StateType
from runnerd.deployments.registry import Registry
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.guests import describe_unfit_entrypoint
from runnerd.polling.poller import Poller
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor

_ACCOUNTS = "the list of this host's accounts"
NAME_CODE = "name the code: runnerctl execute {} --entrypoint FILE.py:FLOW"


@dataclass(frozen=True, slots=True)
class _Claimed:
    """The run that is to be claimed, and as which guest, None where this host serves it."""

    run: FlowRun
    guest: Guest | None = None


class Executions:
    """Claims single runs here and now."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        call_api: ApiCaller,
        config: ConfigInForce,
        supervisor: Supervisor,
        poller: Poller,
        registry: Registry,
        calls: BoundedCalls,
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._config = config
        self._supervisor = supervisor
        self._poller = poller
        self._registry = registry
        self._calls = calls

    async def claim(self, run_id: str, *, again: bool, entrypoint: str | None, peer: Peer) -> str | Refused:
        """Begin to claim the run and return its id, or say why not; whether the API accepts that is known later."""
        cannot = f"cannot execute flow run {run_id}"
        if entrypoint is not None and (unfit := describe_unfit_entrypoint(entrypoint)) is not None:
            return Refused(status=422, detail=f"{cannot}: entrypoint {entrypoint}: {unfit}")
        found = await self._call_api(lambda: self._api.pools.placed_run(run_id), reads=True)
        if isinstance(found, Refused):
            return found
        if found is None:
            return Refused(status=404, detail=f"there is no flow run {run_id} in Prefect")
        if (cause := describe_over(found.state, again=again)) is not None:
            return Refused(status=409, detail=f"{cannot}: {cause}")
        claimed = await self._place(found, entrypoint, peer)
        if isinstance(claimed, Refused):
            return replace(claimed, detail=f"{cannot}: {claimed.detail}")
        if not self._supervisor.claim_now(claimed.run, guest=claimed.guest):
            cause = self._supervisor.record_problem or "the run is live on this host already"
            return Refused(status=409, detail=f"{cannot}: {cause}")
        return claimed.run.id

    async def _place(self, run: FlowRun, entrypoint: str | None, peer: Peer) -> _Claimed | Refused:
        """Find out by whose settings the run is started."""
        if entrypoint is None and self._registry.own(run.deployment_id) is not None:
            return _Claimed(replace(run, pool=None, queue=None))
        if entrypoint is None and self._poller.serves(run):
            return _Claimed(run)
        if entrypoint is None and run.deployment_id is None:
            detail = f"it has no deployment that says where its code is; {NAME_CODE.format(run.id)}"
            return Refused(status=409, detail=detail)
        user = self._user()
        refused = await self._refuse_user(user, peer)
        if refused is not None:
            return refused
        guest = await self._call_api(lambda: self._name(run, entrypoint), reads=True)
        if isinstance(guest, Refused):
            return guest
        return _Claimed(replace(run, pool=None, queue=None), replace(guest, user=user))

    async def _name(self, run: FlowRun, entrypoint: str | None) -> Guest:
        """Read the names of the run's flow and deployment."""
        named = await self._api.read_deployments([run.deployment_id]) if run.deployment_id else []
        flow = await self._api.read_flow(run.flow_id)
        return Guest(entrypoint=entrypoint, deployment=named[0].name if named else "", flow=flow or "")

    def _user(self) -> str | None:
        """Return the host's run.user, None for that of the spawner."""
        host = self._config.current.host_run
        return host.run.user if host is not None else None

    async def _refuse_user(self, user: str | None, peer: Peer) -> Refused | None:
        """Refuse a client who must not decide which code runs as the host's run.user: root's, or the daemon's own.

        The code of any flow can do what its user can. Root itself may do everything, and a user what is his own.
        """
        uid = await self._calls.call(f"{_ACCOUNTS}: {user}", lambda: _find_uid(user))
        if isinstance(uid, Unanswered):
            return Refused(status=503, detail=f"{_ACCOUNTS}: {uid.words}")
        if uid is None:
            return Refused(status=409, detail=f"run.user {user} of this host: there is no such user")
        if peer.uid in (0, uid) or uid not in (0, os.geteuid()):
            return None
        whose = "root" if uid == 0 else "the user of runnerd"
        detail = (
            f"such a run is started as the host's run.user, which is {whose}, and no other user may run code as that;"
            " set run.user in runnerd.yaml to a user of flows"
        )
        return Refused(status=403, detail=detail)


def _find_uid(user: str | None) -> int | None:
    """Find the uid of this user, of the daemon's own without a name; None where there is no such user."""
    try:
        return os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def describe_over(state: ApiState, *, again: bool) -> str | None:
    """Say why a run in this state is not executed; None when it is: a Failed or Crashed one is retried."""
    if state.type is StateType.CANCELLED:  # both majors refuse the claim
        return f"the run is {state.type.title()}; create a new one with runnerctl run, or retry it with runnerctl retry"
    if state.type is StateType.COMPLETED and not again:  # older servers accept the claim
        return (
            f"the run is {state.type.title()}; runnerctl execute --again runs it once more, where Prefect permits that"
        )
    return None
