"""Ask a flow's own interpreter for its name and parameter schema: what to start, and how to read what comes back.

Nothing is started here: `inspection_spec` says what the spawner should start, `parse_results` reads the file it leaves.
The asking program is runnerd/inspect_flow.py, passed as text. What cannot be read is a failure of the entrypoints
concerned, never an exception: a deployment whose flow cannot be inspected takes nothing else down.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from runnerd.core.place import Json
from runnerd.core.prefect import Inspection
from runnerd.core.process import LaunchSpec
from runnerd.launch.spec import PROGRAM, program_argv, program_text

FailureKind = Literal[
    "no-prefect",
    "missing-file",
    "no-such-function",
    "not-a-flow",
    "import-failed",
    "timeout",
    "crashed",
    "no-answer",
]

TIME_LIMIT_S = 60.0
BATCH = 50  # entrypoints per process: the work list is one environment string, which Linux bounds at 128 KiB
SPARE_S = 60.0  # for importing prefect itself, which takes seconds on a busy host
OUTPUT_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionFailure:
    """Why one entrypoint could not be inspected; `message` is one line for an administrator."""

    kind: FailureKind
    message: str
    traceback_tail: str = ""


def inspection_batches(entrypoints: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The entrypoints, each once and in order, in portions that fit one process."""
    unique = tuple(dict.fromkeys(entrypoints))
    for start in range(0, len(unique), BATCH):
        yield unique[start : start + BATCH]


def inspection_spec(
    *,
    python: str,
    user: str | None,
    group: str | None,
    working_directory: str,
    environment: Mapping[str, str],
    entrypoints: Iterable[str],
    key: str,
    output: str,
    result: str,
    time_limit_s: float = TIME_LIMIT_S,
) -> LaunchSpec:
    """What to start to inspect these entrypoints; the answers will be in the file `result`.

    All of them share interpreter, user, directory and environment. `time_limit_s` is for each of them.
    """
    unique = tuple(dict.fromkeys(entrypoints))
    work = json.dumps({"entrypoints": unique, "time_limit_s": time_limit_s})
    return LaunchSpec(
        key=key,
        attempt=1,
        argv=program_argv(python, "runnerd-inspect"),
        environment={**environment, PROGRAM: program_text("inspect_flow"), "RUNNERD_INSPECT": work},
        working_directory=working_directory,
        output=output,
        result=result,
        user=user,
        group=group,
        output_max_bytes=OUTPUT_MAX_BYTES,
        runtime_max_s=time_limit_s * len(unique) + SPARE_S,
        stop_timeout_s=5.0,
    )


def parse_results(
    text: str, entrypoints: Iterable[str], *, words: str = "ended"
) -> dict[str, Inspection | InspectionFailure]:
    """Exactly one answer for each entrypoint, whatever `text` holds; `words` says how the process ended."""
    answers: dict[str | None, Inspection | InspectionFailure] = {}
    for line in text.splitlines():
        entrypoint, answer = _read_line(line)
        if answer is not None:
            answers.setdefault(entrypoint, answer)
    silence = InspectionFailure(kind="no-answer", message=f"the inspection process ended before it answered: {words}")
    everybody = answers.get(None, silence)
    return {entrypoint: answers.get(entrypoint, everybody) for entrypoint in entrypoints}


def cache_key(
    *,
    python: str,
    entrypoint: str,
    working_directory: str,
    user: str | None,
    environment: Mapping[str, str],
    sha256: str | None = None,
) -> str | None:
    """Names an inspection's result for as long as what it depends on stays; None when that cannot be told from here.

    Pass the inspection's own `sha256` when storing, so that a file replaced meanwhile is not cached under the
    wrong content. Without it the entrypoint's file is read: a module entrypoint or an unreadable file gives None.
    What the file imports is not part of the key.
    """
    digest = sha256 or _sha256(entrypoint, working_directory)
    if digest is None:
        return None
    facts = [python, _prefect_stamp(python), entrypoint, working_directory, user, sorted(environment.items()), digest]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read_line(line: str) -> tuple[str | None, Inspection | InspectionFailure | None]:
    """The entrypoint (None: all of them) and its answer; no answer when the line is cut or not one of ours."""
    try:
        said: Json = json.loads(line)
        entrypoint = said["entrypoint"]
        if not isinstance(entrypoint, str | None):
            return None, None
        if "ok" in said:
            return entrypoint, _inspection(said["ok"])
        return entrypoint, _failure(said["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None


def _inspection(said: Json) -> Inspection:
    schema = said["parameter_schema"]
    if not isinstance(schema, dict):
        raise TypeError("parameter_schema is not an object")
    return Inspection(
        flow_name=_text(said["flow_name"]),
        description=_text_or_none(said.get("description")),
        version=_text_or_none(said.get("version")),
        parameter_schema=schema,
        prefect_version=_text(said["prefect_version"]),
        file=_text_or_none(said.get("file")),
        sha256=_text_or_none(said.get("sha256")),
        hooks=_texts_or_none(said.get("hooks")),
    )


def _failure(said: Json) -> InspectionFailure:
    if said["kind"] not in get_args(FailureKind):
        raise ValueError("unknown kind")
    return InspectionFailure(
        kind=cast(FailureKind, said["kind"]),
        message=_text(said["message"]),
        traceback_tail=_text(said.get("traceback_tail", "")),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _texts_or_none(value: Json) -> tuple[str, ...] | None:
    return None if value is None else tuple(_text(item) for item in value)


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _sha256(entrypoint: str, working_directory: str) -> str | None:
    path, found, _ = entrypoint.rpartition(":")
    if not found or not path.endswith(".py"):
        return None
    try:
        return hashlib.sha256(Path(working_directory, path).read_bytes()).hexdigest()
    except OSError:
        return None


def _prefect_stamp(python: str) -> list[str]:
    """What tells an upgrade of that interpreter's Prefect without running it: the names of its metadata directories."""
    prefix = Path(os.path.abspath(python)).parent.parent
    found: set[str] = set()
    for packages in ("site-packages", "dist-packages"):
        found.update(p.name for p in prefix.glob(f"lib*/python3*/{packages}/prefect-*.dist-info"))
    return sorted(found)
