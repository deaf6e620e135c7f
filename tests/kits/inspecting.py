"""Runs runnerd/inspect_flow.py as the spawner would: its text after -c, a file as descriptor 3."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runnerd.core.prefect import Inspection
from runnerd.deployments.inspection import InspectionFailure, inspection_spec, parse_results


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    answers: dict[str, Inspection | InspectionFailure]
    output: str
    answer_text: str
    code: int

    def good(self, entrypoint: str) -> Inspection:
        answer = self.answers[entrypoint]
        assert isinstance(answer, Inspection), answer
        return answer

    def failure(self, entrypoint: str) -> InspectionFailure:
        answer = self.answers[entrypoint]
        assert isinstance(answer, InspectionFailure), answer
        return answer


def inspect(
    python: str,
    folder: Path,
    entrypoints: Iterable[str],
    *,
    time_limit_s: float = 60.0,
    patience_s: float | None = None,
    pull: object = None,
) -> Inspected:
    entrypoints = list(entrypoints)
    spec = inspection_spec(
        python=python,
        user=None,
        group=None,
        working_directory=str(folder),
        environment={"PATH": os.defpath, "HOME": str(folder), "PREFECT_HOME": str(folder / "home")},
        entrypoints=entrypoints,
        key="inspect-1",
        output=str(folder / "inspect.out"),
        result=str(folder / "inspect.ndjson"),
        time_limit_s=time_limit_s,
        patience_s=patience_s,
        pull=pull,
    )
    assert spec.result is not None
    with open(spec.output, "wb") as output:
        done = subprocess.run(
            ["sh", "-c", 'result=$1; shift; exec "$@" 3>"$result"', "sh", spec.result, *spec.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=spec.working_directory,
            env=dict(spec.environment),
            check=False,
        )
    text = Path(spec.result).read_text()
    return Inspected(
        answers=parse_results(text, entrypoints, words=f"exited {done.returncode}"),
        output=Path(spec.output).read_text(),
        answer_text=text,
        code=done.returncode,
    )


def write_stand_in(tmp_path: Path) -> Path:
    """A folder with a package `prefect` in it, of just the names the program uses."""
    package = tmp_path / "prefect"
    (package / "utilities").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '3.0.0'\nprint('prefect says hello')\n")
    (package / "utilities" / "__init__.py").touch()
    (package / "utilities" / "callables.py").write_text(
        "class Schema:\n"
        "    def model_dump(self, mode, exclude_unset):\n"
        "        return {'title': 'Parameters'}\n"
        "def parameter_schema(flow):\n    return Schema()\n"
    )
    (package / "exceptions.py").write_text(
        "class ScriptError(Exception):\n    user_exc = None\nclass MissingFlowError(Exception):\n    pass\n"
    )
    (package / "flows.py").write_text(
        "import runpy\n"
        "class Flow:\n    name = 'etl'\n    description = 'loads'\n    version = '1'\n"
        "def load_flow_from_entrypoint(entrypoint):\n"
        "    runpy.run_path(entrypoint.split(':')[0])\n"
        "    return Flow()\n"
    )
    return tmp_path
