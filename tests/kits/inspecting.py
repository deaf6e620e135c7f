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


def inspect(python: str, folder: Path, entrypoints: Iterable[str], *, time_limit_s: float = 60.0) -> Inspected:
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
