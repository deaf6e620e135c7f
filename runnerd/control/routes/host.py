"""The handlers of the daemon as a whole: its state, its configuration, and draining it."""

from __future__ import annotations

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.change_log import log_change
from runnerd.control.routes.resolve import read_body

SECONDS_MAX = 10 * 365 * 86400.0


class HostRoutes:
    """Handles the paths of /v1 that name no run, deployment or work pool."""

    def __init__(self, *, host: Host, log: RequestLog) -> None:
        self._host = host
        self._log = log

    async def get_status(self, request: Request) -> Reply:
        await self._host.runs.measure()
        return json_reply(self._host.status())

    async def get_health(self, request: Request) -> Reply:
        well, document = self._host.health()
        return json_reply(document, status=200 if well else 503)

    async def get_doctor(self, request: Request) -> Reply:
        return json_reply(await self._host.doctor())

    async def get_metrics(self, request: Request) -> Reply:
        text = await self._host.metrics()
        return Reply(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")

    async def get_config(self, request: Request) -> Reply:
        return json_reply(self._host.config())

    async def reload_config(self, request: Request) -> Reply:
        inspect = bool(read_body(request, {"inspect": (bool,)})["inspect"])
        peer = log_change(self._log, request, "reload", **({"inspect": True} if inspect else {}))
        return json_reply(await self._host.reload(inspect=inspect, peer=peer))

    async def drain(self, request: Request) -> Reply:
        body = read_body(request, {"timeout_s": (float, int), "reason": (str,)})
        timeout_s, reason = body["timeout_s"], body["reason"] or None
        if timeout_s is not None and not 0 <= timeout_s <= SECONDS_MAX:
            raise HttpProblem(422, f"'timeout_s' must be a number of seconds from 0 to {SECONDS_MAX:.0f}")
        peer = log_change(self._log, request, "drain", timeout_s=timeout_s, reason=reason)
        await self._host.runs.measure()
        timeout_s = None if timeout_s is None else float(timeout_s)
        return json_reply(self._host.drain(timeout_s=timeout_s, reason=reason, peer=peer))

    async def undrain(self, request: Request) -> Reply:
        read_body(request, {})
        await self._host.runs.measure()
        return json_reply(self._host.undrain(peer=log_change(self._log, request, "undrain")))
