"""Decides which configuration files messages may quote.

The daemon reads files that not everybody may read, and shows its messages to everybody who may use its socket. So a
message quotes a file only if that file, with all links followed, is in the configuration directory. Of a file outside,
say /etc/shadow, a message has the place and the advice to check that file by its own name, with the reader's own
rights.
"""

from __future__ import annotations

import os
from dataclasses import replace

from runnerd.core.place import Problem


def is_inside(real_path: str, directory: str) -> bool:
    """Return whether the file, whose path has no links, is in the directory or below."""
    real_directory = os.path.realpath(directory)
    return os.path.commonpath([real_path, real_directory]) == real_directory


def conceal(problem: Problem, real_path: str, *, others: int = 0) -> Problem:
    """Replace the message about the file at `real_path` by one that quotes nothing of the file.

    The message also stands for the problems at so many `others` places of the file.
    """
    more = f" and at {others} other {'place' if others == 1 else 'places'}" if others else ""
    message = (
        f"is wrong here{more}, in a way that is not shown, because a link leads out of the configuration directory;"
        f" see {'them' if others else 'it'} with: runnerctl config check {real_path}"
    )
    return replace(problem, message=message)
