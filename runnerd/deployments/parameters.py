"""Checks the parameters that a file declares against the parameters of the flow. Pure.

Both majors of Prefect take a deployment with parameters that its flow lacks, and each of its runs fails: the engine
refuses a name that is not in the flow's signature, also where that has **kwargs (whose values are a parameter of that
name, and in the schema).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runnerd.core.json_words import shorten
from runnerd.core.place import Json, Place, Problem
from runnerd.core.prefect import Inspection
from runnerd.core.schema_words import suggest_near_match
from runnerd.core.settings import Deployment


def find_unknown_parameters(deployment: Deployment, inspection: Inspection) -> tuple[Problem, ...]:
    """Return a problem for each declared parameter that the flow lacks; none where its parameters are unknown."""
    known = inspection.parameter_schema.get("properties")
    if not isinstance(known, Mapping):
        return ()
    return tuple(
        Problem(
            message=_describe_of_command(key, name, known)
            if deployment.command is not None
            else _describe(key, name, inspection.flow_name, known),
            place=place,
            deployment=deployment.name,
        )
        for key, name, place in _declared(deployment)
        if name not in known
    )


def _declared(deployment: Deployment) -> Iterator[tuple[str, str, Place]]:
    """Yield the parameters with the key that declares them and their places."""
    sections = {"parameters": deployment.parameters}
    sections |= {
        f"schedules[{index}].parameters": one.parameters or {} for index, one in enumerate(deployment.schedules)
    }
    for section, parameters in sections.items():
        for name in parameters:
            key = f"{section}.{name}"
            yield key, name, deployment.parameter_places.get(key, deployment.place)


def _describe_of_command(key: str, name: str, known: Mapping[str, Json]) -> str:
    return f"{key}: parameter_schema has no property {name!r}{suggest_near_match(name, known)}"


def _describe(key: str, name: str, flow: str, known: Mapping[str, Json]) -> str:
    hint = suggest_near_match(name, known)
    if not hint:
        hint = f"; its parameters are {shorten(', '.join(known))}" if known else "; it has none"
    return f"{key}: the flow {flow!r} has no parameter {name!r}, and each run with it fails{hint}"
