"""Writes and reads what passes between the daemon and the process that resolves jobs: JSON. Pure.

Invariant: what is read is checked, because a job template may have got the better of the process that wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runnerd.core.place import Json
from runnerd.core.prefect import BlockDocument, Variable
from runnerd.pools.job.lookups import BlockNamed, BlockWithId, Found, Lookup, VariableNamed
from runnerd.pools.job.process_job import ProcessJob, agent_job, process_job
from runnerd.pools.job.template import Resolved, Sources, Unresolvable, lookups, resolve

JobAnswer = ProcessJob | Unresolvable | frozenset[Lookup]  # lookups: what has to be looked up first


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSources:
    """Everything that the job of a run of an agent's pool is made from."""

    block: BlockDocument | None  # the deployment's infrastructure
    deployment: str  # its full name, flow/deployment
    overrides: Mapping[str, Json]

    def __repr__(self) -> str:
        return f"AgentSources(deployment={self.deployment!r})"


# --- requests ---------------------------------------------------------------------------------------------------


def write_request(sources: Sources | AgentSources, found: Found) -> bytes:
    """Write a request. Raises ValueError or RecursionError for sources that JSON cannot hold."""
    document: dict[str, Json]
    if isinstance(sources, AgentSources):
        block = None if sources.block is None else _write_block(sources.block)
        document = {"agent": {"block": block, "deployment": sources.deployment, "overrides": dict(sources.overrides)}}
    else:
        of = {name: getattr(sources, name) for name in Sources.__dataclass_fields__}
        document = {"sources": of, "found": [[_write_lookup(one), _write_value(found[one])] for one in found]}
    return json.dumps(document, default=dict).encode()


def answer_request(request: bytes) -> bytes:
    """Do what a request asks for, and write the answer."""
    try:
        answer = _answer(json.loads(request))
    except MemoryError:
        raise  # for the process to say
    except Exception as error:  # a template that breaks the code fails its own pool only
        answer = Unresolvable(f"the job template or its variables break their reader: {type(error).__name__}")
    return write_answer(answer)


def _answer(document: Json) -> JobAnswer:
    if "agent" in document:
        of = document["agent"]
        block = None if of["block"] is None else BlockDocument(**of["block"])
        return agent_job(block, deployment=of["deployment"], overrides=of["overrides"])
    sources = Sources(**document["sources"])
    found: Found = {_read_lookup(one): _read_value(value) for one, value in document["found"]}
    wanted = lookups(sources, found) - found.keys()
    if wanted:
        return wanted
    resolved = resolve(sources, found)
    if not isinstance(resolved, Resolved):
        return resolved
    return process_job(resolved.configuration, sources=resolved.sources)


def _write_block(block: BlockDocument) -> Json:
    return {"id": block.id, "name": block.name, "type_slug": block.type_slug, "data": dict(block.data)}


def _write_value(value: BlockDocument | Variable | None) -> Json:
    if isinstance(value, BlockDocument):
        return {"block": _write_block(value)}
    return None if value is None else {"variable": {"name": value.name, "value": value.value}}


def _read_value(document: Json) -> BlockDocument | Variable | None:
    if document is None:
        return None
    return BlockDocument(**document["block"]) if "block" in document else Variable(**document["variable"])


def _write_lookup(lookup: Lookup) -> list[str]:
    match lookup:
        case BlockNamed():
            return ["block", lookup.type_slug, lookup.name]
        case BlockWithId():
            return ["block with id", lookup.id]
        case VariableNamed():
            return ["variable", lookup.name]


def _read_lookup(document: Json) -> Lookup:
    """Read a lookup. Raises ValueError for anything else."""
    match document:
        case ["block", str(type_slug), str(name)]:
            return BlockNamed(type_slug, name)
        case ["block with id", str(block_id)]:
            return BlockWithId(block_id)
        case ["variable", str(name)]:
            return VariableNamed(name)
    raise ValueError("not a lookup")


# --- answers ----------------------------------------------------------------------------------------------------


def write_answer(answer: JobAnswer) -> bytes:
    match answer:
        case Unresolvable():
            document: Json = {"problem": answer.problem}
        case ProcessJob():
            document = {"job": {name: _plain(getattr(answer, name)) for name in ProcessJob.__dataclass_fields__}}
        case _:
            document = {"wanted": sorted(_write_lookup(one) for one in answer)}
    return json.dumps(document).encode()


def _plain(value: Json) -> Json:
    return sorted(value) if isinstance(value, frozenset) else value


def read_answer(data: bytes) -> JobAnswer:
    """Read an answer. Raises ValueError for anything else."""
    try:
        document = json.loads(data)
        if "wanted" in document:
            return frozenset(_read_lookup(one) for one in document["wanted"])
        if "problem" in document:
            return Unresolvable(_text(document["problem"]))
        return _read_job(document["job"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not an answer: {type(error).__name__}") from None


def _read_job(job: Json) -> ProcessJob:
    grace, stream_output = job["grace_period_s"], job["stream_output"]
    if not isinstance(stream_output, bool) or not isinstance(grace, int | float | None):
        raise ValueError("not a job")
    return ProcessJob(
        command=None if job["command"] is None else tuple(map(_text, job["command"])),
        env=_texts(job["env"]),
        removed=frozenset(map(_text, job["removed"])),
        working_dir=_text_or_none(job["working_dir"]),
        labels=_texts(job["labels"]),
        name=_text_or_none(job["name"]),
        stream_output=stream_output,
        grace_period_s=grace,
        ignored=tuple(map(_text, job["ignored"])),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _texts(value: Json) -> dict[str, str]:
    return {_text(key): _text(one) for key, one in value.items()}
