"""tables.py: what the tables say, and in which colour."""

from __future__ import annotations

import pytest

from runnerd.cli.console import Console
from runnerd.cli.tables import print_pools


@pytest.mark.parametrize(
    ("state", "worker", "shown", "colour"),
    [
        ("ready", None, "ready", 32),
        ("ready", "running", "ready (worker running)", 32),
        ("ready", "failed", "ready (worker failed)", 31),
        ("ready", "restarting", "ready (worker restarting)", 33),
        ("invalid", "running", "invalid (worker running)", 31),
    ],
)
def test_a_pool_whose_worker_has_failed_does_not_look_ready(
    capsys: pytest.CaptureFixture[str], state: str, worker: str | None, shown: str, colour: int
) -> None:
    pool = {"name": "p", "type": "docker", "state": state, "running": 0, "limit": None, "queues": [], "problem": None}
    about = {"state": worker} if worker else None
    print_pools(Console(json=False, width=100, colour=True), [{**pool, "worker": about}])
    assert f"\x1b[{colour}m{shown}\x1b[0m" in capsys.readouterr().out
