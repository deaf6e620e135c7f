"""Renews the concurrency lease of a run from its claim until its process reports Running and renews it itself.

Prefect 3 counts the runs of a limited deployment by leases of some minutes. A lease that ends while the process is
still being prepared, fetches its code or imports it, gives the slot to another run and cancels this one.
"""

from __future__ import annotations

import asyncio

from runnerd.core.errors import ApiError
from runnerd.core.machine import RunRecord
from runnerd.core.prefect import StateType
from runnerd.log.log import Log, about
from runnerd.runs.claiming import FlowRunApi

_FIRST_S = 20.0  # the shortest lease that a deployment can ask for is 60 s (grace_period_seconds)
_EVERY_S = 100.0  # a renewed lease lasts 300 s


async def renew_lease(record: RunRecord, *, api: FlowRunApi, log: Log) -> None:
    """Renew the lease of `record` as long as the run is Pending, or Running as a command, which renews nothing."""
    states = (StateType.PENDING,) if record.command is None else (StateType.PENDING, StateType.RUNNING)
    delay_s = _FIRST_S
    while True:
        await asyncio.sleep(delay_s)
        delay_s = _EVERY_S
        try:
            found = await api.read_run(record.id)
            if found is None or found.state.type not in states or found.state.lease_id is None:
                return
            if not await api.renew_lease(found.state.lease_id):
                if found.state.type is StateType.RUNNING:
                    return  # the server has ended the lease as that of an old client, and counts the run until its end
                log.warning("the concurrency lease of a run has ended", run=record.id, about=about(record))
                return
        except ApiError as error:
            log.debug("cannot renew a concurrency lease", run=record.id, why=str(error))
            delay_s = _FIRST_S
