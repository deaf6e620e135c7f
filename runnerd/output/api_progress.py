"""Stores how much of the output of one attempt of a command Prefect's API has, in a file beside the output.

Invariants: a batch is on disk as pending before it is sent, so that the next daemon asks the API for its first line
before anything is sent again; the file is there exactly as long as something may be left to send.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime

from runnerd.core.codec import Decoder, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A batch that the API may have: the output until `to` was in it, and `first` is the time of its first line."""

    to: int
    first: datetime
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the API has the output.

    `left_out`: bytes that are left out since the last line that says so. `last`: the time of the last line. `in_tail`:
    the output is beyond its bound, and what is sent now is the end of it.
    """

    offset: int = 0
    sent_bytes: int = 0
    sent_lines: int = 0
    left_out: int = 0
    last: datetime | None = None
    in_tail: bool = False
    pending: Pending | None = None


def load_progress(path: str) -> Progress:
    """Read the file; an empty one is that of an attempt of which nothing was sent. Raises OSError.

    A file that cannot be understood counts as empty: lines are then repeated, and none is lost.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        return Decoder().decode(Progress, json.loads(text)) if text else Progress()
    except (ValueError, TypeError, KeyError):
        return Progress()


def save_progress(path: str, progress: Progress) -> None:
    """Write the file so that it is whole, old or new, whenever this host loses its power. Raises OSError."""
    new = f"{path}.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(to_json(progress), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
