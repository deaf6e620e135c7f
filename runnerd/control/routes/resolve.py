"""Reads the parts of a request: finds the run or deployment that a path names, checks query values and the body.

Every body is read by `read_body`, which bounds each member; names in paths and queries are bounded where the request is
received (http/exchange.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from runnerd.control.contract import Host, Refused
from runnerd.control.http.exchange import Request
from runnerd.control.http.problem import HttpProblem
from runnerd.core.json_words import show_value
from runnerd.core.names import describe_unfit_name, describe_unfit_text
from runnerd.core.numbers import parse_whole
from runnerd.core.place import Json
from runnerd.core.strict_json import read_json

NAMES_MAX = 1000  # names in one list; each may cost a query of the journal

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
