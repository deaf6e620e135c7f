"""The table of the control API: every path and method, its handler, the level it needs, and the access to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Access, Route
from runnerd.control.routes.deployments import DeploymentRoutes
from runnerd.control.routes.events import EventRoutes
from runnerd.control.routes.host import HostRoutes
from runnerd.control.routes.launches import LaunchRoutes
from runnerd.control.routes.pools import PoolRoutes
from runnerd.control.routes.runner import RunnerRoutes
from runnerd.control.routes.runs import RunRoutes
from runnerd.core.settings import ControlSettings

ADOPTION_LIMIT_S = 15.0  # below the client's limit: a client that gave up must not have its change made afterwards
ADOPTED, PUBLIC = Access.ADOPTED, Access.PUBLIC
HOURS = frozenset({"hours"})
READER, OPERATOR, ADMIN = Level.READER, Level.OPERATOR, Level.ADMIN


def build_routes(*, host: Host, log: RequestLog, guard: Guard | None = None) -> list[Route]:
    """Return the routes of the control API; `guard` checks the requests, None where every client may do everything.

    A reader may read, an operator may change what this host's deployments and runs do, an admin may do what decides
    which code runs here, and what belongs to other hosts too: a flow run that is named by its id, work pools, and the
    runs that a pool still offers to every host (RunRoutes checks the cancellation of those by itself, and LaunchRoutes
    the retry of runs that other hosts may be offered).
    The changes of work pools do not wait for adoption: pools are Prefect's, and no run of this host is touched.
    """
    guard = guard or Guard(control=ControlSettings)
    daemon, events = HostRoutes(host=host, log=log), EventRoutes(host=host)
    runs, deployments = RunRoutes(host=host, log=log, guard=guard), DeploymentRoutes(host=host, log=log)
    pools, launches = PoolRoutes(host=host, log=log), LaunchRoutes(host=host, log=log, guard=guard)
    table = [
        Route("GET", "/v1/status", daemon.get_status, READER),
        Route("GET", "/v1/health", daemon.get_health, READER, PUBLIC),
        Route("GET", "/v1/metrics", daemon.get_metrics, READER, PUBLIC),
        Route("GET", "/v1/doctor", daemon.get_doctor, READER),
        Route("GET", "/v1/config", daemon.get_config, READER),
        Route("POST", "/v1/reload", daemon.reload_config, OPERATOR, ADOPTED),
        Route("POST", "/v1/drain", daemon.drain, OPERATOR, ADOPTED),
        Route("POST", "/v1/undrain", daemon.undrain, OPERATOR, ADOPTED),
        Route("GET", "/v1/events", events.stream_events, READER, query=frozenset({"run"})),
        Route("GET", "/v1/runs", runs.list_runs, READER, query=frozenset({"history", "state", "deployment"})),
        Route("GET", "/v1/runs/*", runs.get_run, READER),
        Route("GET", "/v1/runs/*/logs", runs.stream_output, READER, query=frozenset({"follow", "offset", "attempt"})),
        Route("GET", "/v1/runs/*/attempts", runs.list_attempts, READER),
        Route("POST", "/v1/runs/*/cancel", runs.cancel_run, OPERATOR, ADOPTED),
        Route("GET", "/v1/runs/*/plan", launches.plan_run, READER),
        Route("POST", "/v1/runs/*/retry", launches.retry_run, OPERATOR, ADOPTED),
        Route("POST", "/v1/cancel", runs.cancel_runs, OPERATOR, ADOPTED),
        Route("POST", "/v1/execute", runs.execute_run, ADMIN, ADOPTED),
        Route("GET", "/v1/deployments", deployments.list_deployments, READER),
        Route("GET", "/v1/deployments/*", deployments.get_deployment, READER),
        Route("GET", "/v1/deployments/*/plan", launches.plan_deployment, READER),
        Route("POST", "/v1/deployments/*/run", deployments.run_deployment, OPERATOR, ADOPTED),
        Route("POST", "/v1/deployments/*/pause", deployments.pause_deployment, OPERATOR, ADOPTED),
        Route("POST", "/v1/deployments/*/resume", deployments.resume_deployment, OPERATOR, ADOPTED),
        Route("POST", "/v1/deployments/*/pull", deployments.pull_source, OPERATOR, ADOPTED),
        Route("POST", "/v1/deployments/*/revert", deployments.revert_source, ADMIN, ADOPTED),
        *_list_pool_routes(pools),
    ]
    return [_once_adopted(host, route) if route.access is ADOPTED else route for route in table]


def _list_pool_routes(pools: PoolRoutes) -> list[Route]:
    return [
        Route("GET", "/v1/pools", pools.list_pools, READER),
        Route("POST", "/v1/pools", pools.create_pool, ADMIN),
        Route("GET", "/v1/pools/*", pools.get_pool, READER),
        Route("POST", "/v1/pools/*/pause", pools.pause, ADMIN),
        Route("POST", "/v1/pools/*/resume", pools.resume, ADMIN),
        Route("POST", "/v1/pools/*/update", pools.update, ADMIN),
        Route("POST", "/v1/pools/*/delete", pools.delete, ADMIN),
        Route("GET", "/v1/pools/*/preview", pools.get_preview, READER, query=HOURS),
        Route("GET", "/v1/pools/*/queues", pools.list_queues, READER),
        Route("POST", "/v1/pools/*/queues", pools.create_queue, ADMIN),
        Route("GET", "/v1/pools/*/queues/*", pools.get_queue, READER),
        Route("POST", "/v1/pools/*/queues/*/pause", pools.pause, ADMIN),
        Route("POST", "/v1/pools/*/queues/*/resume", pools.resume, ADMIN),
        Route("POST", "/v1/pools/*/queues/*/update", pools.update, ADMIN),
        Route("POST", "/v1/pools/*/queues/*/delete", pools.delete, ADMIN),
        Route("GET", "/v1/pools/*/queues/*/preview", pools.get_preview, READER, query=HOURS),
        Route("GET", "/v1/queues", pools.list_queues, READER),
        Route("GET", "/v1/preview", pools.get_preview, READER, query=HOURS),
        Route("GET", "/v1/worker-types", pools.list_worker_types, READER),
        Route("GET", "/v1/worker-types/*", pools.get_worker_type, READER),
    ]


def build_web_routes(*, host: Host, log: RequestLog, stop: Callable[[], None]) -> list[Route]:
    """Return what the web server of Prefect's Runner has; these paths are served over TCP, where the Gate admits."""
    runner = RunnerRoutes(host=host, log=log, stop=stop)
    return [
        Route("GET", "/health", runner.get_health, READER, PUBLIC),
        Route("GET", "/run_count", runner.get_run_count, READER, PUBLIC),
        _once_adopted(host, Route("POST", "/deployment/*/run", runner.run_deployment, OPERATOR, PUBLIC)),
        Route("POST", "/shutdown", runner.shut_down, ADMIN, PUBLIC),
    ]


def _once_adopted(host: Host, route: Route) -> Route:
    """Let a route wait until the runs of the previous daemon are known.

    Until then the daemon knows no runs, so a cancellation would be answered with success and cancel nothing.
    """

    async def handle(request: Request, *variables: str) -> Reply | StreamReply:
        try:
            async with asyncio.timeout(ADOPTION_LIMIT_S):
                await host.runs.adopted()
        except TimeoutError:
            detail = "cannot make changes yet: runnerd is starting and has not adopted its runs; try again in a moment"
            raise HttpProblem(503, detail, headers={"Retry-After": "1"}) from None
        return await route.handler(request, *variables)

    return replace(route, handler=handle)
