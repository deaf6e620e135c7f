"""Memory of the daemon and the spawner together when there is nothing to do: PSS after 20 idle seconds."""

from __future__ import annotations

import sys
import time

from tests.kits.bench import Budget, scratch
from tests.kits.measuring import memory_mib

IDLE_S = 20.0
PSS_MIB = 40.0


def main() -> int:
    budget = Budget()
    with scratch() as host:
        host.configure(5)
        with host.daemon() as daemon:
            host.wait("5 deployments are registered", lambda: host.ready() == 5)
            time.sleep(IDLE_S)
            both = (daemon.process, daemon.spawner)
            parts = [memory_mib(process, "Pss") for process in both]
            private = sum(memory_mib(process, "Private_(?:Clean|Dirty)") for process in both)
            note = f"daemon {parts[0]:.1f}, spawner {parts[1]:.1f}; private to them {private:.1f}"
            budget.measure("idle memory, PSS of daemon and spawner", sum(parts), "MiB", PSS_MIB, note)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
