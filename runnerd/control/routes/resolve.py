"""Reads the parts of a request: finds the run or deployment that a path names, checks query values and the body.

Every body is read by `read_body`, which bounds each member; names in paths and queries are bounded where the request is
received (http/exchange.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runnerd.control.contract import Host, Refused, RunElsewhere
from runnerd.control.http.exchange import Request
from runnerd.control.http.problem import HttpProblem
from runnerd.core.json_words import show_value
from runnerd.core.names import describe_unfit_name, describe_unfit_text
from runnerd.core.numbers import parse_whole
from runnerd.core.place import Json
from runnerd.core.strict_json import read_json

NAMES_MAX = 1000  # names in one list; each may cost a query of the journal

UNKNOWN_MAX = 100  # ids in one request that this host does not know; each costs requests to Prefect

CANDIDATES = 10  # named in the message of an ambiguous name; a longer message would not help


def find_run(host: Host, ref: str) -> Json:
    """Return the document of the run that `ref` means. Raises HttpProblem 404 for none, 409 for several."""
    return _one(host.runs.find(ref) if ref else [], ref, "run", "no-such-run", "runnerctl runs --all")


@dataclass(slots=True)
class Found:
    """The ids of runs that names meant, and of them those that this host does not have."""

    ids: list[str] = field(default_factory=list)
    elsewhere: dict[str, RunElsewhere] = field(default_factory=dict)


async def find_run_anywhere(host: Host, ref: str) -> tuple[Json, RunElsewhere | None]:
    """Return the document of the run that `ref` means, and the run where only Prefect has it.

    Prefect is asked only about a full id that is unknown here. Raises HttpProblem as `find_runs_anywhere` does.
    """
    found = await find_runs_anywhere(host, [ref])
    (run_id,) = found.ids
    elsewhere = found.elsewhere.get(run_id)
    return elsewhere.document if elsewhere is not None else find_run(host, run_id), elsewhere


async def find_runs_anywhere(host: Host, refs: Sequence[str]) -> Found:
    """Find the runs that `refs` mean, on this host, and by their full ids in Prefect.

    Raises HttpProblem 404 for a run that neither has, 409 for several, 422 for more than UNKNOWN_MAX that Prefect would
    be asked for, 503 when Prefect does not answer.
    """
    named = list(dict.fromkeys(full_id(ref) or ref for ref in refs))
    unknown = {ref for ref in named if full_id(ref) and not host.runs.find(ref)}
    if len(unknown) > UNKNOWN_MAX:
        cause = f"{len(unknown)} of these runs are not on this host, of which {UNKNOWN_MAX} may be given at once"
        raise HttpProblem(422, f"cannot look up the runs: {cause}")
    read = await host.runs.read_elsewhere(sorted(unknown)) if unknown else {}
    if isinstance(read, Refused):
        raise HttpProblem(read.status, read.detail, kind="refused")
    found = Found()
    for ref in named:
        if ref not in unknown or host.runs.find(ref):  # a poll may have listed the run meanwhile
            found.ids.append(find_run(host, ref)["id"])
        elif ref in read:
            found.ids.append(ref)
            found.elsewhere[ref] = read[ref]
        else:
            raise HttpProblem(404, f"there is no run {show_value(ref)}, on this host or in Prefect", kind="no-such-run")
    found.ids = list(dict.fromkeys(found.ids))
    return found


def full_id(text: str) -> str | None:
    """Return the id of a flow run in Prefect's spelling; None for any other text."""
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else None
    except ValueError:
        return None


def find_deployment(host: Host, ref: str) -> Json:
    """Return the document of the deployment that `ref` means. Raises HttpProblem 404 for none, 409 for several."""
    found = host.deployments.find(ref) if ref else []
    return _one(found, ref, "deployment", "no-such-deployment", "runnerctl deployments")


def unwrap(result: Json | Refused) -> Json:
    """Return the document. Raises the HttpProblem with the status and detail of a refusal."""
    if isinstance(result, Refused):
        raise HttpProblem(result.status, result.detail, kind="refused")
    return result


def read_flag(request: Request, name: str) -> bool:
    """Return a yes-or-no value of the query, False when absent. Raises HttpProblem 422."""
    value = request.query.get(name, "0").lower()
    if value in ("1", "true", "yes", ""):
        return True
    if value in ("0", "false", "no"):
        return False
    raise HttpProblem(422, f"{name} must be 1 or 0, not {show_value(value)}")


def read_number(request: Request, name: str, *, least: int, most: int) -> int | None:
    """Return a whole number from the query, None when absent. Raises HttpProblem 422."""
    value = request.query.get(name)
    if value is None:
        return None
    try:
        return parse_whole(value, least=least, most=most)
    except ValueError as error:
        raise HttpProblem(422, f"{name} {error}") from None


def read_body(request: Request, allowed: Mapping[str, tuple[type, ...]]) -> dict[str, Json]:
    """Return the members of the JSON body, None for an absent or null member. An empty body has no members.

    `allowed` maps names to types: `str` is a name, `list` a list of names, `Text` a text of several lines. Any other
    member is refused: a misspelt "deployment" must not be ignored, or a cancellation would reach more runs than meant.
    Raises HttpProblem 400 for invalid JSON, else 422.
    """
    try:
        members = read_json(request.body) if request.body else {}
    except ValueError as error:
        raise HttpProblem(400, f"cannot read the body as JSON: {error}") from None
    if not isinstance(members, dict):
        raise HttpProblem(422, "the body must be a JSON object")
    for name, value in members.items():
        if name not in allowed:
            known = ", ".join(allowed) or "no members"
            raise HttpProblem(422, f"{show_value(name)} is not known here; known are {known}")
        # not isinstance: in Python a bool is an int, in JSON `true` is no number
        if value is not None and (wrong := _describe_unfit(value, allowed[name])):
            raise HttpProblem(422, f"{name!r} {wrong}")
    return {name: members.get(name) for name in allowed}


class Text(str):
    """In `allowed` of `read_body`: a text of several lines, such as a description."""


def _describe_unfit(value: Json, kinds: tuple[type, ...]) -> str | None:
    """Say why `value` is not of these kinds, to follow its name; None when it is."""
    if Text in kinds and isinstance(value, str):
        return describe_unfit_text(value)
    if type(value) not in kinds:
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    if isinstance(value, str):
        return describe_unfit_name(value)
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        return "must be a list of strings"
    if len(value) > NAMES_MAX:
        return f"has {len(value)} items; at most {NAMES_MAX} are allowed"
    unfit = next((wrong for item in value if (wrong := describe_unfit_name(item))), None)
    return f"has an item that {unfit}" if unfit else None


_KINDS = {
    bool: "true or false",
    str: "a string",
    Text: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


_BETTER_NAMES = {"run": "its id", "deployment": "flow/name or its id"}


def _full_name(item: Json, noun: str) -> str:
    return f"{item['flow']}/{item['name']}" if noun == "deployment" and item.get("flow") else str(item["name"])


def _one(found: list[Json], ref: str, noun: str, kind: str, command: str) -> Json:
    if len(found) == 1:
        return found[0]
    if not found:
        raise HttpProblem(404, f"there is no {noun} {show_value(ref)}; see {command}", kind=kind)
    candidates = [{key: item[key] for key in ("id", "name", "flow") if key in item} for item in found]
    named = ", ".join(f"{item['id']} ({_full_name(item, noun)})" for item in found[:CANDIDATES])
    more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
    raise HttpProblem(
        409,
        f"{show_value(ref)} matches {len(found)} {noun}s: {named}{more}; name one by {_BETTER_NAMES[noun]}",
        kind="ambiguous",
        extra={"candidates": candidates},
    )
