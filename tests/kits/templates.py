"""Job configurations from templates and job variables, with blocks and variables to look up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runnerd.core.prefect import BlockDocument, Variable
from runnerd.pools.job.template import (
    BlockNamed,
    BlockWithId,
    Found,
    Lookup,
    Resolved,
    Sources,
    Unresolvable,
    VariableNamed,
    lookups,
    resolve,
)
from runnerd.pools.job.wire import answer_request
from runnerd.system.side_process import SideFailure

Json = Any
ID = "0d3b5c1e-5a53-4d2a-9f0e-0c8a3f6f2a11"
DEFAULT = "the default of work pool P's template"
DEPLOYMENT = "deployment etl/nightly's job_variables"
RUN = "the run's own job variables"
POOL = "work pool P's job_configuration"


def block(**data: Json) -> BlockDocument:
    return BlockDocument(id=ID, name="b", type_slug="t", data=data)


KNOWN: dict[Lookup, BlockDocument | Variable] = {
    BlockNamed("secret", "token"): block(value="hunter2"),
    BlockNamed("secret", "lines"): block(value="{{ ctx.hunter2 }} {{ prefect.variables.hunter2 }}"),
    BlockNamed("json", "map"): block(value={"a": {"b": 1}}),
    BlockNamed("aws", "creds"): block(user="u", region="{{ prefect.variables.region }}"),
    BlockWithId(ID): block(cpu="hunter2"),
    VariableNamed("region"): Variable(name="region", value="eu"),
    VariableNamed("yes"): Variable(name="yes", value=True),
    VariableNamed("four"): Variable(name="four", value=4),
}


def sources(
    configuration: Json, properties: Json | None = None, *, schema: Json | None = None, **changes: Json
) -> Sources:
    whole = {"type": "object", "properties": properties or {}, **(schema or {})}
    given = {"pool": "P", "template": {"job_configuration": configuration, "variables": whole}}
    return Sources(**{**given, "deployment": "etl/nightly", **changes})


def looked_up(of: Sources) -> tuple[Found, list[frozenset[Lookup]]]:
    """All that is asked for, as a launcher finds it; and what was asked for at a time."""
    found: dict[Lookup, BlockDocument | Variable | None] = {}
    rounds = []
    while wanted := lookups(of, found):
        rounds.append(wanted)
        found |= {one: KNOWN.get(one) for one in wanted}
    return found, rounds


def outcome(of: Sources) -> Resolved | Unresolvable:
    return resolve(of, looked_up(of)[0])


def problem(of: Sources) -> str:
    result = outcome(of)
    assert isinstance(result, Unresolvable), result
    return result.problem


def configuration(of: Sources) -> Mapping[str, Json]:
    result = outcome(of)
    assert isinstance(result, Resolved), result
    return result.configuration


class AskedHere:
    """Answers as the process that resolves jobs does, in this one."""

    async def ask(self, request: bytes) -> bytes | SideFailure:
        return answer_request(request)

    def warm(self) -> None: ...

    async def close(self) -> None: ...
