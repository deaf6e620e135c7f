"""The files that a contender needs: the flow that all run, and the program that serves it."""

from __future__ import annotations

from pathlib import Path

FLOW, FILE = "bench", "bench_flow.py"
ENTRYPOINT = f"{FILE}:{FLOW}"

FLOW_TEXT = '''\
"""The flow that every contender runs. Its first statement takes the time."""

import os
import signal
import time
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

MARKS = Path(__file__).parent / "marks"


@flow
def bench(how: str = "noop") -> None:
    now = time.time()
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark = MARKS / str(flow_run.id).replace("-", "")
    mark.with_suffix(".new").write_text(f"{now!r} {os.getpid()}")
    mark.with_suffix(".new").rename(mark)
    while how != "noop":
        time.sleep(0.5)
'''
SERVE_TEXT = '''\
"""Serves the flow under the names given: serve.py LIMIT NAME..."""

import sys

from bench_flow import bench
from prefect import serve

if __name__ == "__main__":
    limit, names = int(sys.argv[1]), sys.argv[2:]
    if len(names) == 1:
        bench.serve(name=names[0], limit=limit)
    else:
        serve(*[bench.to_deployment(name=name) for name in names], limit=limit)
'''


def write_files(directory: Path) -> None:
    """The flow, the serving program and the directory of marks; any user may mark."""
    (directory / FILE).write_text(FLOW_TEXT)
    (directory / "serve.py").write_text(SERVE_TEXT)
    marks = directory / "marks"
    marks.mkdir()
    marks.chmod(0o777)


def read_mark(directory: Path, run_id: str) -> tuple[float, int] | None:
    """The time of the first statement of a run's flow, and the process that it is in; None before that."""
    try:
        at, pid = (directory / "marks" / run_id.replace("-", "")).read_text().split()
    except FileNotFoundError:
        return None
    return float(at), int(pid)
