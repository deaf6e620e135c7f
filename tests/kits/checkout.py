"""Where this checkout is, for tests that become another user."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
HIDDEN = "this checkout is below a directory that other users may not enter"


def hidden_from_others() -> bool:
    """Whether another user cannot load our modules from here."""
    return not all(directory.stat().st_mode & 0o001 for directory in (ROOT, *ROOT.parents))
