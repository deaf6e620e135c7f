"""Launch specs and answers of programs that read what a script serves, in the script's own interpreter.

Nothing is started here: `recording_spec` makes the launch spec, `parse_recording` reads the file that the process
leaves. The program is runnerd/programs/record_script.py with three more texts. The script may have written the answer:
what cannot be read is a failure of this script, never an exception, and the entries are checked as those of a drop-in.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.core.recording import Recording, RecordingFailure, Said, Served
from runnerd.core.settings import RunSettings
from runnerd.launch.spec import PROGRAM, program_argv, program_text

TIME_LIMIT_S = 60.0
START_LIMIT_S = 60.0  # importing prefect takes seconds on a busy host
_OUTPUT_MAX_BYTES = 2**20
_ANSWER_MAX_CHARACTERS = 4 * 2**20
_ENTRIES_MAX = 10_000  # as in the schema of drop-ins
_LEFT_OUT_MAX = 1000
_DEPENDENCIES_MAX = 5000  # files that are watched
_MESSAGE_MAX = 1000
_TEXTS = ("script_text", "script_entries", "script_recorder", "record_script")  # each imports from those before it


def recording_environment(
    script: str, *, arguments: Sequence[str] = (), time_limit_s: float = TIME_LIMIT_S, answers: int = 3
) -> dict[str, str]:
    """Make the variables with which `recording_argv` reads `script`, relative to its working directory.

    The answer is written to the descriptor `answers`.
    """
    work = {"script": script, "arguments": list(arguments), "time_limit_s": time_limit_s, "answers": answers}
    texts = {f"runnerd.programs.{name}": program_text(name) for name in _TEXTS}
    return {
        PROGRAM: program_text("load_texts"),
        "RUNNERD_TEXTS": json.dumps(texts),
        "RUNNERD_RECORD": json.dumps(work),
    }


def recording_argv(python: str) -> tuple[str, ...]:
    """Make the command that reads a script."""
    return program_argv(python, "runnerd-record")


def recording_spec(
    run: RunSettings,
    *,
    script: str,
    environment: Mapping[str, str],
    key: str,
    output: str,
    result: str,
) -> LaunchSpec:
    """Make the launch spec of a process that reads what `script` serves, within the limits of `run`."""
    time_limit_s = min(TIME_LIMIT_S, run.runtime_max_s or TIME_LIMIT_S)
    return LaunchSpec(
        key=key,
        attempt=1,
        argv=recording_argv(run.python),
        environment={**environment, **recording_environment(script, time_limit_s=time_limit_s)},
        working_directory=run.working_directory,
        output=output,
        result=result,
        user=run.user,
        group=run.group,
        umask=run.umask,
        nice=run.nice,
        rlimits=run.rlimits,
        memory_max_bytes=run.memory_max_bytes,
        cpu_quota_percent=run.cpu_quota_percent,
        tasks_max=run.tasks_max,
        output_max_bytes=min(_OUTPUT_MAX_BYTES, run.output_max_bytes),
        runtime_max_s=time_limit_s + START_LIMIT_S,
        stop_timeout_s=5.0,
    )


def parse_recording(text: str, script: str, *, words: str = "ended") -> Recording | RecordingFailure:
    """Parse the result file's text, whatever it is; `words` say how the process ended.

    The script may have written the text, of any length: not for the event loop.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    if len(line) > _ANSWER_MAX_CHARACTERS:
        words = f"its answer has more than {_ANSWER_MAX_CHARACTERS} characters"
    elif line:
        try:
            document: Json = json.loads(line)
            return _recording(document["ok"]) if "ok" in document else _failure(document["error"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            words = "its answer cannot be read"
    return RecordingFailure(said=Said(f"{script}: the process that reads what it serves has no answer: {words}"))


def _recording(document: Json) -> Recording:
    return Recording(
        prefect_version=_text(document["prefect_version"]),
        served=tuple(_served(one) for one in itertools.islice(document["deployments"], _ENTRIES_MAX)),
        left_out=tuple(_said(one) for one in itertools.islice(document["left_out"], _LEFT_OUT_MAX)),
        dependencies=_stamps(document.get("dependencies")),
    )


def _served(document: Json) -> Served:
    entry = document["entry"]
    if not isinstance(entry, dict):
        raise TypeError("entry is not an object")
    return Served(entry, _line(document.get("line")) or 1)


def _said(document: Json) -> Said:
    return Said(_message(document["message"]), _line(document.get("line")))


def _failure(document: Json) -> RecordingFailure:
    return RecordingFailure(
        said=_said(document), kind=_text(document["kind"]), traceback_tail=_text(document.get("traceback_tail", ""))
    )


def _message(value: Json) -> str:
    return " ".join(_text(value).split())[:_MESSAGE_MAX]


def _line(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else None


def _stamps(value: Json) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    return {_text(path): _text(stamp) for path, stamp in itertools.islice(value.items(), _DEPENDENCIES_MAX)}


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
