"""Says of a command what an inspection says of a flow: its flow's name, and the schema of its parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from runnerd.core.commands import Command
from runnerd.core.place import Json
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment


def inspect_command(deployment: Deployment, command: Command) -> Inspection:
    """Return the inspection of a command: nothing of it depends on a file or on an interpreter."""
    return Inspection(
        flow_name=deployment.flow_name or deployment.name,
        description=None,
        parameter_schema=_make_schema(deployment, command),
        prefect_version="",
        file=None,
        hooks=(),
        dependencies={},
    )


def split_commands(deployments: Iterable[Deployment]) -> tuple[list[Deployment], list[Deployment]]:
    """Return the deployments with a command, and those with a flow's code."""
    all_ = list(deployments)
    return [one for one in all_ if one.command is not None], [one for one in all_ if one.command is None]


def _make_schema(deployment: Deployment, command: Command) -> dict[str, Json]:
    """Return the file's schema, with titles and positions as Prefect's UI wants them.

    Without one, the declared parameters take any value, as those of a flow without annotations.
    """
    if command.parameter_schema is not None:
        properties = command.parameter_schema.get("properties", {})
        return {**command.parameter_schema, "properties": _titled(properties)}
    inferred: dict[str, Json] = {}
    for schedule in deployment.schedules:
        inferred |= {name: {} for name in schedule.parameters or {}}
    inferred |= {name: {"default": value} for name, value in deployment.parameters.items()}
    return {"title": "Parameters", "type": "object", "properties": _titled(inferred)}


def _titled(properties: dict[str, Json]) -> dict[str, Json]:
    return {
        name: {"title": name, "position": position, **one} if isinstance(one, dict) else one
        for position, (name, one) in enumerate(properties.items())
    }
