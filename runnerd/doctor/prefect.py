"""Looks at Prefect's API: whether it answers and lets us in, which version it is, and what its clock says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runnerd.core.errors import ApiError
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.core.settings import ApiSettings
from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, error, ok, unknown, warning
from runnerd.doctor.subject import Subject
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.clock import Skew
from runnerd.prefect_api.dialect import version_of

FLOOR = (2, 20, 0)
_ANSWER_S = 5.0
_SKEW_WARNING_S, _SKEW_ERROR_S = 2.0, 30.0


class Asked:
    """Which Prefect answers, asked on behalf of every look that wants to know, and for a short while only."""

    def __init__(self, *, api: PrefectApi, limit_s: float = _ANSWER_S) -> None:
        self._api = api
        self._limit_s = limit_s
        self._going: asyncio.Task[ServerInfo] | None = None

    async def server(self) -> ServerInfo | str:
        """It, or why that is not known."""
        task = self._going
        if task is None or task.done():
            task = self._going = asyncio.create_task(self._api.server(), name="doctor: server")
        await asyncio.wait({task}, timeout=self._limit_s)
        if not task.done():
            return f"the API has not said within {format_duration(self._limit_s)}"
        try:
            return task.result()
        except ApiError as why:
            return str(why)


async def look_at_api(subject: Subject, asked: Asked) -> Sequence[Check]:
    await asked.server()  # the health is that of the latest request, which may be long ago, or none yet
    found = [api_check(subject.api.url, subject.api.health, subject.config.current.settings.api)]
    embedded = subject.embedded()
    if embedded is not None:
        remedy = "see its log, prefect-server.log in the log directory"
        found.append(error("embedded server", embedded, remedy))
    return found


def api_check(url: str, health: ApiHealth, settings: ApiSettings) -> Check:
    if health.condition is ApiCondition.OK:
        return ok("api", f"{url} answers")
    meanwhile = "nothing new starts here meanwhile, what runs goes on, and reports wait"
    if health.condition is ApiCondition.UNREACHABLE:
        detail = f"{url} does not answer: {health.detail}; {meanwhile}"
        return error("api", detail, f"is it up, and is api.url right? From this host: curl -sS {url}/health")
    detail = f"{url} answers, but {health.detail}"
    return error("api", detail, _degraded_remedy(health.detail, settings))


def _degraded_remedy(detail: str, settings: ApiSettings) -> str:
    file = settings.auth_string_file or settings.key_file
    place = f"into {file}" if file else "into a file that api.key_file or api.auth_string_file names"
    if detail.startswith("401"):
        return f"put a valid credential {place}: it is read again by itself; then runnerctl status shows the API as ok"
    if detail.startswith("403"):
        return f"give this credential the right to do that in Prefect, or put another {place}"
    if "is api.url right" in detail:
        return "set api.url to where Prefect's API is (it ends in /api), and restart runnerd: flows run on"
    if detail.startswith(("cannot read the API key", "cannot read the auth string", "cannot use the ")):
        return "mend that file: one line, readable by the user that runnerd runs as; it is read again by itself"
    return "see the log of the Prefect server, or of what stands before it; it heals by itself when the server does"


# --- its version ----------------------------------------------------------------------------------------------


async def look_at_server(asked: Asked) -> Sequence[Check]:
    return [server_check(await asked.server())]


def server_check(server: ServerInfo | str) -> Check:
    name = "server version"
    if isinstance(server, str):
        return unknown(name, server, "mend the api check first")
    if not server.supported:
        return error(name, server.why or f"Prefect {server.version} is not known", "use a Prefect server 2.20 or 3.x")
    version = version_of(server.version)
    if version is not None and version < FLOOR:
        detail = f"the server is Prefect {server.version}, older than anything runnerd is tested with"
        return warning(name, detail, "bring the server to 2.20 or 3.x")
    return ok(name, "Prefect Cloud" if server.version == "cloud" else f"Prefect {server.version}")


# --- its clock ------------------------------------------------------------------------------------------------


async def look_at_clock(subject: Subject, asked: Asked) -> Sequence[Check]:
    await asked.server()
    return [clock_check(subject.api.skew)]


def clock_check(skew: Skew | None) -> Check:
    if skew is None:
        return unknown("clock", "cannot be compared: no answer of the API has told its time yet")
    apart, words = format_duration(max(1, round(abs(skew.seconds)))), "ahead of" if skew.seconds > 0 else "behind"
    if skew.at_least_s <= _SKEW_WARNING_S:
        return ok("clock", f"within {apart} of the API's")
    detail = f"this host's clock is {apart} {words} the API's, so runs start early or late by that much"
    remedy = "have both hosts keep the time: timedatectl shows it; systemctl enable --now systemd-timesyncd, or chrony"
    return (error if skew.at_least_s > _SKEW_ERROR_S else warning)("clock", detail, remedy)
