"""Launch specs and results of inspections: a flow's own interpreter prints the flow's name and parameter schema.

Nothing is started here: `inspection_spec` makes the launch spec, `parse_results` reads the file that the process
leaves. The program is runnerd/programs/inspect_flow.py, passed as text. What cannot be read is a failure of the
entrypoints concerned, never an exception, so that one broken flow does not stop the other deployments.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from runnerd.core.place import Json
from runnerd.core.prefect import Inspection
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.files.regular import read_regular
from runnerd.launch.spec import PROGRAM, program_argv, program_text

FailureKind = Literal[
    "no-prefect",
    "missing-file",
    "no-such-function",
    "not-a-flow",
    "import-failed",
    "timeout",
    "slow",
    "crashed",
    "no-answer",
]

TIME_LIMIT_PER_ENTRYPOINT_S = 60.0
PATIENCE_S = 5.0  # with an import that others wait for
ENTRYPOINTS_PER_PROCESS = 50  # they are passed in one environment string, which Linux bounds at 128 KiB
_START_LIMIT_PER_PROCESS_S = 60.0  # importing prefect takes seconds on a busy host
_OUTPUT_MAX_BYTES = 2**20
_ANSWER_MAX_CHARACTERS = 2**20  # of one entrypoint; json parses without a pause for other threads
FLOW_FILE_MAX_BYTES = 16 * 2**20  # of a larger one the content counts as unknown
_DEPENDENCIES_MAX = 5000  # files of one flow that are watched
_PACKAGES_LISTED = 20_000  # entries of site-packages that are read at most


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionFailure:
    """Why one entrypoint could not be inspected; `message` is one line for an administrator."""

    kind: FailureKind
    message: str
    traceback_tail: str = ""


def inspection_batches(entrypoints: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Split the entrypoints, each once and in order, into batches for one process each."""
    unique = tuple(dict.fromkeys(entrypoints))
    for start in range(0, len(unique), ENTRYPOINTS_PER_PROCESS):
        yield unique[start : start + ENTRYPOINTS_PER_PROCESS]


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
    limits: RunSettings | None = None,
    time_limit_s: float = TIME_LIMIT_PER_ENTRYPOINT_S,
    patience_s: float | None = None,
    pull: Json = None,
) -> LaunchSpec:
    """Make the launch spec of a process that inspects the entrypoints and writes their results to the file `result`.

    The entrypoints share interpreter, user, directory, environment and `limits`, those of their runs. `time_limit_s` is
    for each entrypoint; a shorter runtime_max is. One that takes longer than `patience_s` is answered as slow.
    `pull`: the pull steps that are run first, and whether in a directory of their own.
    """
    if limits is not None:
        time_limit_s = min(time_limit_s, limits.runtime_max_s or time_limit_s)
    unique = tuple(dict.fromkeys(entrypoints))
    work: dict[str, Json] = {"entrypoints": unique, "time_limit_s": time_limit_s}
    if patience_s is not None:
        work["patience_s"] = patience_s
    if pull is not None:
        work["pull"] = pull
    spec = LaunchSpec(
        key=key,
        attempt=1,
        argv=program_argv(python, "runnerd-inspect"),
        environment={**environment, PROGRAM: program_text("inspect_flow"), "RUNNERD_INSPECT": json.dumps(work)},
        working_directory=working_directory,
        output=output,
        result=result,
        user=user,
        group=group,
        output_max_bytes=_OUTPUT_MAX_BYTES,
        runtime_max_s=time_limit_s * len(unique) + _START_LIMIT_PER_PROCESS_S,
        stop_timeout_s=5.0,
    )
    return spec if limits is None else _limited(spec, limits)


def _limited(spec: LaunchSpec, limits: RunSettings) -> LaunchSpec:
    """What a flow does when it is imported may cost the host no more than its run."""
    return replace(
        spec,
        nice=limits.nice,
        rlimits=limits.rlimits,
        memory_max_bytes=limits.memory_max_bytes,
        cpu_quota_percent=limits.cpu_quota_percent,
        tasks_max=limits.tasks_max,
        output_max_bytes=min(_OUTPUT_MAX_BYTES, limits.output_max_bytes),
    )


def parse_results(
    text: str, entrypoints: Iterable[str], *, words: str = "ended"
) -> dict[str, Inspection | InspectionFailure]:
    """Parse the result file's text; return exactly one result per entrypoint, whatever the text is.

    An entrypoint without a line in the text gets a failure with `words`, which say how the process ended. The flow's
    code may have written the text, of any length: not for the event loop.
    """
    answers: dict[str | None, Inspection | InspectionFailure] = {}
    for line in text.splitlines():
        if len(line) > _ANSWER_MAX_CHARACTERS:
            words = f"an answer has more than {_ANSWER_MAX_CHARACTERS} characters"
            continue
        entrypoint, answer = _read_line(line)
        if answer is not None:
            answers.setdefault(entrypoint, answer)
    no_answer = InspectionFailure(kind="no-answer", message=f"the inspection process ended before it answered: {words}")
    answer_for_all = answers.get(None, no_answer)
    return {entrypoint: answers.get(entrypoint, answer_for_all) for entrypoint in entrypoints}


def cache_key(
    *,
    python: str,
    entrypoint: str,
    working_directory: str,
    user: str | None,
    environment: Mapping[str, str],
    sha256: str | None = None,
) -> str | None:
    """Compute a key under which an inspection's result may be cached; None when the content is unknown.

    The key changes with the interpreter, its Prefect, the user, the directory, the environment and the file's content,
    but not with what the file imports: that is in the inspection's dependencies. When storing, pass the inspection's
    own `sha256`, so that a file replaced meanwhile is not cached under the wrong content. Without `sha256` the
    entrypoint's file is read: a module entrypoint or an unreadable file gives None. The flow's user may replace these
    files: not for the event loop.
    """
    digest = sha256 or _sha256(entrypoint, working_directory)
    if digest is None:
        return None
    parts = [
        python,
        _prefect_versions(python),
        entrypoint,
        working_directory,
        user,
        sorted(environment.items()),
        digest,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_line(line: str) -> tuple[str | None, Inspection | InspectionFailure | None]:
    """Parse one line: its entrypoint (None: all) and result; no result for a line that is cut or not the program's."""
    try:
        document: Json = json.loads(line)
        entrypoint = document["entrypoint"]
        if not isinstance(entrypoint, str | None):
            return None, None
        if "ok" in document:
            return entrypoint, _inspection(document["ok"])
        return entrypoint, _failure(document["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None


def _inspection(document: Json) -> Inspection:
    schema = document["parameter_schema"]
    if not isinstance(schema, dict):
        raise TypeError("parameter_schema is not an object")
    return Inspection(
        flow_name=_text(document["flow_name"]),
        description=_text_or_none(document.get("description")),
        version=_text_or_none(document.get("version")),
        parameter_schema=schema,
        prefect_version=_text(document["prefect_version"]),
        file=_text_or_none(document.get("file")),
        sha256=_text_or_none(document.get("sha256")),
        hooks=_texts_or_none(document.get("hooks")),
        dependencies=_stamps(document.get("dependencies")),
    )


def _failure(document: Json) -> InspectionFailure:
    if document["kind"] not in get_args(FailureKind):
        raise ValueError("unknown kind")
    return InspectionFailure(
        kind=cast(FailureKind, document["kind"]),
        message=_text(document["message"]),
        traceback_tail=_text(document.get("traceback_tail", "")),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _texts_or_none(value: Json) -> tuple[str, ...] | None:
    return None if value is None else tuple(_text(item) for item in value)


def _stamps(value: Json) -> dict[str, str]:
    if not isinstance(value, dict | None):
        raise TypeError("dependencies is not an object")
    some = itertools.islice((value or {}).items(), _DEPENDENCIES_MAX)
    return {_text(path): _text(stamp) for path, stamp in some}


def _text_or_none(value: Json) -> str | None:
    return None if value is None else _text(value)


def _sha256(entrypoint: str, working_directory: str) -> str | None:
    path, found, _ = entrypoint.rpartition(":")
    if not found or not path.endswith(".py"):
        return None
    try:
        data = read_regular(os.path.join(working_directory, path), max_bytes=FLOW_FILE_MAX_BYTES)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return hashlib.sha256(data).hexdigest()


def _prefect_versions(python: str) -> list[str]:
    """Name the interpreter's Prefect metadata directories, which change with an upgrade, without running Python."""
    prefix = Path(os.path.abspath(python)).parent.parent
    found: set[str] = set()
    for packages in ("site-packages", "dist-packages"):
        for folder in prefix.glob(f"lib*/python3*/{packages}"):
            found.update(fnmatch.filter(_list_some(folder), "prefect-*.dist-info"))
    return sorted(found)


def _list_some(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, _PACKAGES_LISTED)]
    except OSError:
        return []
