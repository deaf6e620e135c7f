"""Reads scripts as record_script.py does, each in a child of one interpreter with Prefect, without a server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kits.checkout import ROOT
from tests.kits.daemon import ANSWER_S
from tests.kits.prefect_servers import ENVS

READ = """
import json, os, signal, sys, time
from runnerd.programs import record_script as program
os.environ.update(program.CUT_OFF)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
program.import_prefect()
answers, found = os.memfd_create("answers"), {}
for script, limit_s in json.loads(sys.argv[1]).items():
    work = {"script": script, "time_limit_s": limit_s, "answers": os.dup(answers)}
    found[script] = program.record_apart(work, time.time_ns())
    os.close(work["answers"])
print("\\n" + json.dumps(found))
"""


def read_scripts(folder: Path, major: int, scripts: Mapping[str, float]) -> dict[str, Any]:
    """Return the answer of each of these files of `folder`, which may take so many seconds."""
    python = ENVS / f"prefect{major}" / "bin" / "python"
    environment = {"PATH": os.defpath, "HOME": str(folder), "PREFECT_HOME": str(folder / "home")}
    done = subprocess.run(
        [str(python), "-c", READ, json.dumps(scripts)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * ANSWER_S,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
