"""Forks runs of a process that has imported what a run imports: a standalone program for the flow's interpreter.

This file imports no module of runnerd, and the daemon does not import it but passes its text to `python -c`, so that no
file permission matters.
"""

from __future__ import annotations


def run() -> None:
    raise SystemExit("cannot fork runs yet")
