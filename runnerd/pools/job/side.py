"""The process that resolves jobs for the daemon: everything hostile in a job template is computed here.

Started by pools/resolving.py as `main` of this module; see ADR 28.
"""

from __future__ import annotations

import importlib

from runnerd.pools.job.wire import answer_request
from runnerd.system.side_program import Limits, serve

SIDE = "runnerd.pools.job.side"
LIMITS = Limits(cpu_s=5, memory_bytes=512 * 2**20)


def main() -> None:
    """Answer requests until stdin ends."""
    importlib.import_module("jsonschema")  # now, not in the first request
    serve(answer_request, LIMITS)
