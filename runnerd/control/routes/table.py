"""The table of the control API: every path and method, its handler, and the access to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Access, Route
from runnerd.control.routes.deployments import DeploymentRoutes
from runnerd.control.routes.events import EventRoutes
from runnerd.control.routes.host import HostRoutes
from runnerd.control.routes.pools import PoolRoutes
from runnerd.control.routes.runs import RunRoutes

ADOPTION_LIMIT_S = 15.0  # below the client's limit: a client that gave up must not have its change made afterwards
ADOPTED, PUBLIC = Access.ADOPTED, Access.PUBLIC
HOURS = frozenset({"hours"})


def build_routes(*, host: Host, log: RequestLog) -> list[Route]:
    """Return the routes of the control API.

    The changes of work pools do not wait for adoption: pools are Prefect's, and no run of this host is touched.
    """
    daemon, events = HostRoutes(host=host, log=log), EventRoutes(host=host)
    runs, deployments = RunRoutes(host=host, log=log), DeploymentRoutes(host=host, log=log)
    pools = PoolRoutes(host=host, log=log)
    table = [
        Route("GET", "/v1/status", daemon.get_status),
        Route("GET", "/v1/health", daemon.get_health, PUBLIC),
        Route("GET", "/v1/metrics", daemon.get_metrics, PUBLIC),
        Route("GET", "/v1/doctor", daemon.get_doctor),
        Route("GET", "/v1/config", daemon.get_config),
        Route("POST", "/v1/reload", daemon.reload_config, ADOPTED),
        Route("POST", "/v1/drain", daemon.drain, ADOPTED),
        Route("POST", "/v1/undrain", daemon.undrain, ADOPTED),
        Route("GET", "/v1/events", events.stream_events, query=frozenset({"run"})),
        Route("GET", "/v1/runs", runs.list_runs, query=frozenset({"history", "state", "deployment"})),
        Route("GET", "/v1/runs/*", runs.get_run),
        Route("GET", "/v1/runs/*/logs", runs.stream_output, query=frozenset({"follow", "offset"})),
        Route("POST", "/v1/runs/*/cancel", runs.cancel_run, ADOPTED),
        Route("POST", "/v1/cancel", runs.cancel_runs, ADOPTED),
        Route("POST", "/v1/execute", runs.execute_run, ADOPTED),
        Route("GET", "/v1/deployments", deployments.list_deployments),
        Route("GET", "/v1/deployments/*", deployments.get_deployment),
        Route("POST", "/v1/deployments/*/run", deployments.run_deployment, ADOPTED),
        Route("POST", "/v1/deployments/*/pause", deployments.pause_deployment, ADOPTED),
        Route("POST", "/v1/deployments/*/resume", deployments.resume_deployment, ADOPTED),
        Route("GET", "/v1/pools", pools.list_pools),
        Route("POST", "/v1/pools", pools.create_pool),
        Route("GET", "/v1/pools/*", pools.get_pool),
        Route("POST", "/v1/pools/*/pause", pools.pause),
        Route("POST", "/v1/pools/*/resume", pools.resume),
        Route("POST", "/v1/pools/*/update", pools.update),
        Route("POST", "/v1/pools/*/delete", pools.delete),
        Route("GET", "/v1/pools/*/preview", pools.get_preview, query=HOURS),
        Route("GET", "/v1/pools/*/queues", pools.list_queues),
        Route("POST", "/v1/pools/*/queues", pools.create_queue),
        Route("GET", "/v1/pools/*/queues/*", pools.get_queue),
        Route("POST", "/v1/pools/*/queues/*/pause", pools.pause),
        Route("POST", "/v1/pools/*/queues/*/resume", pools.resume),
        Route("POST", "/v1/pools/*/queues/*/update", pools.update),
        Route("POST", "/v1/pools/*/queues/*/delete", pools.delete),
        Route("GET", "/v1/pools/*/queues/*/preview", pools.get_preview, query=HOURS),
        Route("GET", "/v1/queues", pools.list_queues),
        Route("GET", "/v1/preview", pools.get_preview, query=HOURS),
        Route("GET", "/v1/worker-types", pools.list_worker_types),
        Route("GET", "/v1/worker-types/*", pools.get_worker_type),
    ]
    return [_once_adopted(host, route) if route.access is ADOPTED else route for route in table]


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
