"""Makes a contender by its name."""

from __future__ import annotations

from tests.bench.asking import Asker
from tests.bench.contenders import Contender, Serve, Setting, Worker
from tests.bench.rows import COLD, POOL, SERVE, WARM, WORKER
from tests.bench.runnerd_host import RunnerdHost
from tests.bench.waiting import Deadline

KINDS: dict[str, type[Contender]] = {
    COLD: RunnerdHost, WARM: RunnerdHost, POOL: RunnerdHost, SERVE: Serve, WORKER: Worker
}  # fmt: skip


def make_contender(who: str, setting: Setting, asker: Asker, deadline: Deadline) -> Contender:
    """The contender of this name, not started yet."""
    return KINDS[who](who, setting, asker, deadline)
