"""Checks Prefect's API: whether it answers and accepts the credentials, its version and its clock."""

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
from runnerd.prefect_api.dialect import is_before, why_no_deployments

FLOOR = (2, 20, 0)
FLOOR_TEXT = "2.20"
_ANSWER_S = 5.0
_SKEW_WARNING_S, _SKEW_ERROR_S = 2.0, 30.0


class ServerQuery:
    """Reads which Prefect answers, by one request that all checks share."""

    def __init__(self, *, api: PrefectApi, limit_s: float = _ANSWER_S) -> None:
        self._api = api
        self._limit_s = limit_s
        self._going: asyncio.Task[ServerInfo] | None = None

    async def read(self) -> ServerInfo | str:
        """Return the server's version, or why it is unknown, within the time limit."""
        task = self._going
        if task is None or task.done():
            task = self._going = asyncio.create_task(self._api.server(), name="doctor: server")
        await asyncio.wait({task}, timeout=self._limit_s)
        if not task.done():
            return f"the API did not answer within {format_duration(self._limit_s)}"
        try:
            return task.result()
        except ApiError as why:
            return str(why)


async def run_api_checks(subject: Subject, server: ServerQuery) -> Sequence[Check]:
    await server.read()  # makes api.health current: it is the outcome of the latest request
    found = [check_api(subject.api.url, subject.api.health, subject.config.current.settings.api)]
    embedded = subject.embedded()
    if embedded is not None:
        remedy = "see its log, prefect-server.log in the log directory"
        found.append(error("embedded server", embedded, remedy))
    return found


def check_api(url: str, health: ApiHealth, settings: ApiSettings) -> Check:
    if health.condition is ApiCondition.OK:
        return ok("api", f"{url} answers")
    if health.condition is ApiCondition.UNREACHABLE:
        effect = "meanwhile no run is claimed, live runs continue, and their reports wait"
        detail = f"cannot reach {url}: {health.detail}; {effect}"
        return error("api", detail, f"check the server, the network and api.url: curl -sS {url}/health")
    if health.condition is ApiCondition.MAINTENANCE:
        detail = f"{url} is {health.detail}; meanwhile no run is claimed, live runs continue, and their reports wait"
        return warning("api", detail, "wait until the maintenance is over; runnerd asks again by itself")
    detail = f"{url} answers, but {health.detail}"
    return error("api", detail, _degraded_remedy(health.detail, settings))


def _degraded_remedy(detail: str, settings: ApiSettings) -> str:
    file = settings.auth_string_file or settings.key_file
    place = f"into {file}" if file else "into a file that api.key_file or api.auth_string_file names"
    if detail.startswith("401"):
        return f"put a valid credential {place}; runnerd reads the file again by itself"
    if detail.startswith("403"):
        return f"grant this credential the permission in Prefect, or put another {place}"
    if "is api.url right" in detail:
        return "set api.url to the URL of Prefect's API, which ends in /api; then systemctl restart runnerd"
    if detail.startswith(("cannot read the API key", "cannot read the auth string", "cannot use the ")):
        return "fix that file: one line, readable by the user of runnerd; runnerd reads it again by itself"
    return "see the log of the Prefect server or of its proxy; runnerd recovers by itself"


# --- its version ----------------------------------------------------------------------------------------------


async def run_server_checks(server: ServerQuery) -> Sequence[Check]:
    return [check_server(await server.read())]


def check_server(server: ServerInfo | str) -> Check:
    name = "server version"
    if isinstance(server, str):
        return unknown(name, server, "fix the problem of the api check first")
    if not server.supported:
        return error(name, server.why or f"Prefect {server.version} is not known", "use a Prefect server 2.20 or 3.x")
    if (why := why_no_deployments(server)) is not None:
        return warning(name, why, "upgrade the server to 2.20 or 3.x")
    if is_before(server, FLOOR):
        detail = f"Prefect {server.version} is older than {FLOOR_TEXT}, the oldest version runnerd is tested with"
        return warning(name, detail, "upgrade the server to 2.20 or 3.x")
    return ok(name, "Prefect Cloud" if server.version == "cloud" else f"Prefect {server.version}")


# --- its clock ------------------------------------------------------------------------------------------------


async def run_clock_checks(subject: Subject, server: ServerQuery) -> Sequence[Check]:
    await server.read()  # its answer carries the server's time
    return [check_clock(subject.api.skew)]


def check_clock(skew: Skew | None) -> Check:
    if skew is None:
        return unknown("clock", "cannot compare the clocks: the API has sent no answer with a Date header yet")
    apart_s, words = max(1, round(abs(skew.seconds))), "ahead of" if skew.seconds > 0 else "behind"
    if skew.at_least_s <= _SKEW_WARNING_S:
        return ok("clock", f"within {format_duration(apart_s)} of the API's")
    detail = (
        f"this host's clock is {format_duration(apart_s)} {words} the API's, so runs start early or late by that much"
    )
    remedy = "synchronize both hosts' clocks: systemctl enable --now systemd-timesyncd, or chrony; see timedatectl"
    return (error if skew.at_least_s > _SKEW_ERROR_S else warning)("clock", detail, remedy)
