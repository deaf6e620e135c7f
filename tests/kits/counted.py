"""Counts what a runnerd asks of a real server while nothing happens, behind a proxy that records every request."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.kits.daemon import eventually
from tests.kits.fault_proxy import DAEMON, FaultProxy
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, tidy

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Counted:
    """A host whose requests are counted. Its API is asked past the proxy."""

    host: PoolHost
    proxy: FaultProxy

    def asked(self) -> Counter[str]:
        """What the daemon has asked since `forget`, by the kind of request."""
        calls = [call for call in self.proxy.calls if call.who == DAEMON]
        return Counter(f"{call.method} {_ID.sub('{id}', call.path).removeprefix('/api')}" for call in calls)


@contextlib.contextmanager
def counted_host(server: PrefectServer, drop_in: str, *pools: str, stream: bool) -> Iterator[Counted]:
    """A host at its default intervals that serves what `drop_in` says; in the end all of it is gone.

    `stream`: wait until its events arrive.
    """
    with FaultProxy(upstream=server.url) as proxy:
        host = PoolHost(server, url=proxy.url)
        host.api.url = server.url
        host.write_main((host.config / "runnerd.yaml").read_text().replace(", poll_interval: 1s", ""))
        host.drop_in("10-counted.yaml", drop_in)
        try:
            host.start()
            for pool in pools:
                host.serves(pool)
            if stream:
                eventually(lambda: host.json("status")["api"]["stream"]["state"] == "live", "events", log=host.said)
            yield Counted(host, proxy)
        finally:
            host.close()
            tidy(host, *pools)


def idle(hosts: list[Counted], seconds: float) -> list[Counter[str]]:
    """What each of the hosts asks while nothing happens for so long."""
    for one in hosts:
        one.proxy.forget_calls()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)
    return [one.asked() for one in hosts]
