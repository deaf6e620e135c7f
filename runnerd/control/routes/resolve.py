"""Reads the parts of a request: finds the run or deployment that a path names, checks query values and the body."""

from __future__ import annotations

import json
from collections.abc import Mapping

from runnerd.control.contract import Host, Refused
from runnerd.control.http.exchange import Request
from runnerd.control.http.problem import HttpProblem
from runnerd.core.place import Json

CANDIDATES = 10  # named in the message of an ambiguous name; a longer message would not help


def find_run(host: Host, ref: str) -> Json:
    """Return the document of the run that `ref` means. Raises HttpProblem 404 for none, 409 for several."""
    return _one(host.runs.find(ref) if ref else [], ref, "run", "no-such-run", "runnerctl runs --all")


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
    raise HttpProblem(422, f"{name} must be 1 or 0, not {value!r}")


def read_number(request: Request, name: str) -> int:
    """Return a number of bytes from the query, 0 when absent. Raises HttpProblem 422."""
    value = request.query.get(name, "0")
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise HttpProblem(422, f"{name} must be a number of bytes, not {value!r}")
    return int(value)


def read_body(request: Request, allowed: Mapping[str, tuple[type, ...]]) -> dict[str, Json]:
    """Return the members of the JSON body, None for an absent or null member. An empty body has no members.

    `allowed` maps names to types. Any other member is refused: a misspelt "deployment" must not be ignored, or a
    cancellation would reach more runs than meant. Raises HttpProblem 400 for invalid JSON, else 422.
    """
    try:
        members = json.loads(request.body, parse_constant=_no_constant) if request.body else {}
    except (ValueError, RecursionError) as error:
        raise HttpProblem(400, f"the body is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise HttpProblem(422, "the body must be a JSON object")
    for name, value in members.items():
        if name not in allowed:
            raise HttpProblem(422, f"{name!r} is not known here; known are {', '.join(allowed) or 'no members'}")
        # not isinstance: in Python a bool is an int, in JSON `true` is no number
        if value is not None and (type(value) not in allowed[name]):
            kinds = " or ".join(_KINDS[kind] for kind in allowed[name])
            raise HttpProblem(422, f"{name!r} must be {kinds}")
    return {name: members.get(name) for name in allowed}


def read_strings(value: list[Json] | None, name: str) -> list[str]:
    """Return `value` as a list of strings, [] for None. Raises HttpProblem 422."""
    if not all(isinstance(item, str) for item in value or []):
        raise HttpProblem(422, f"{name!r} must be a list of strings")
    return list(value or [])


_KINDS = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


_BETTER_NAMES = {"run": "its id", "deployment": "flow/name or its id"}


def _full_name(item: Json, noun: str) -> str:
    return f"{item['flow']}/{item['name']}" if noun == "deployment" and item.get("flow") else str(item["name"])


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _one(found: list[Json], ref: str, noun: str, kind: str, command: str) -> Json:
    if len(found) == 1:
        return found[0]
    if not found:
        raise HttpProblem(404, f"there is no {noun} {ref!r}; see {command}", kind=kind)
    candidates = [{key: item[key] for key in ("id", "name", "flow") if key in item} for item in found]
    named = ", ".join(f"{item['id']} ({_full_name(item, noun)})" for item in found[:CANDIDATES])
    more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
    raise HttpProblem(
        409,
        f"{ref!r} matches {len(found)} {noun}s: {named}{more}; name one by {_BETTER_NAMES[noun]}",
        kind="ambiguous",
        extra={"candidates": candidates},
    )
