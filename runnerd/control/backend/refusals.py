"""The refusals of requests about work pools and queues, in words for the user who made the request."""

from __future__ import annotations

from collections.abc import Collection

from runnerd.control.contract import Refused
from runnerd.core.prefect import AGENT_POOL, WorkPool
from runnerd.prefect_api.answers import ApiRefusal

NOT_SERVED = "neither its deployment nor its work pool is served here"
UNREGISTERED = Refused(status=409, detail="the deployment is not registered in Prefect yet; runnerctl status shows why")


def refused(no: ApiRefusal) -> Refused:
    return Refused(status=422, detail=f"the API refuses: {no.reason}")


def no_pool(name: str) -> Refused:
    if name == AGENT_POOL:  # most likely the default of --pool
        detail = f"there is no work pool {name!r}, where queues without a pool are; name one with --pool"
        return Refused(status=404, detail=detail)
    return Refused(status=404, detail=f"there is no work pool {name!r}; see runnerctl pool ls")


def no_queue(pool: str, name: str) -> Refused:
    return Refused(status=404, detail=f"there is no work queue {name!r} in work pool {pool!r}; see runnerctl queue ls")


def pool_is_there(name: str) -> Refused:
    detail = f"cannot create work pool {name!r}: it exists already; runnerctl pool create --update changes it"
    return Refused(status=409, detail=detail)


def queue_is_there(pool: str, name: str) -> Refused:
    detail = f"cannot create work queue {name!r} in work pool {pool!r}: it exists already; see runnerctl queue ls"
    return Refused(status=409, detail=detail)


def other_type(pool: WorkPool, type: str | None) -> Refused:
    cause = f"its type is {pool.type!r}, and Prefect cannot change it; leave the type out, or delete the pool first"
    detail = f"cannot change work pool {pool.name!r} to type {type!r}: {cause}"
    return Refused(status=409, detail=detail)


def unknown_type(name: str, types: Collection[str]) -> str:
    return f"the API knows no worker type {name!r}; it knows {', '.join(sorted(types))}"
