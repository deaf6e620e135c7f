"""stop.pause_schedules with whole daemons: a stop pauses, the next start resumes, a restart and SIGKILL do neither."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server
NAMES = ("stop-a", "stop-b")
DROP_IN = "deployments:\n" + "".join(
    f"  - {{name: {name}, entrypoint: 'flows.py:greet', schedules: [{{cron: '0 0 1 1 *'}}]}}\n" for name in NAMES
)


@pytest.fixture
def host(prefect: PrefectServer, tmp_path: Path) -> Iterator[Host]:
    host = Host(url=prefect.url, python=prefect.python)
    try:
        main = (host.config / "runnerd.yaml").read_text()
        host.write_main(f"{main}stop: {{pause_schedules: true}}\n")
        host.drop_in("a.yaml", DROP_IN)
        host.start()
        host.registered(*NAMES)
        yield host
    finally:
        host.close()


def paused(host: Host) -> list[bool]:
    return [host.api.deployment("greet", name)["paused"] for name in NAMES]


def toggle(host: Host, name: str, *, to: bool) -> None:
    """As somebody does in Prefect."""
    deployment_id = host.api.deployment("greet", name)["id"]
    host.api.call("PATCH", f"/deployments/{deployment_id}", {"paused": to})


def stop(host: Host) -> None:
    host.signal(signal.SIGTERM)
    assert host.wait() == 0, host.said()
    host.log.write_bytes(b"")


def test_what_a_stop_paused_the_next_start_resumes_and_nothing_else(host: Host) -> None:
    assert paused(host) == [False, False]
    stop(host)
    assert paused(host) == [True, True]
    host.start()
    eventually(lambda: paused(host) == [False, False], "both to be resumed", log=host.said)
    eventually(lambda: {one["state"] for one in host.json("deployments")} == {"ready"}, "both to be shown so")

    toggle(host, "stop-a", to=True)
    stop(host)
    assert paused(host) == [True, True]
    host.start()
    eventually(lambda: paused(host) == [True, False], "the other one to be resumed", log=host.said)
    toggle(host, "stop-a", to=False)

    host.kill()  # no stop: nothing is paused
    assert paused(host) == [False, False]
    host.start()
    host.registered(*NAMES)
    assert paused(host) == [False, False]


def test_a_daemon_that_is_killed_after_the_stop_began(host: Host) -> None:
    """The stop waits for its flow, and is killed; what it had paused by then is resumed."""
    host.drop_in("b.yaml", "deployments: [{name: slow, entrypoint: 'flows.py:stubborn', run: {stop_timeout: 600s}}]\n")
    assert host.json("reload")["ok"]
    host.registered("slow")
    run_id = host.run_now("slow", mark=str(host.root / "mark"))
    host.running(run_id)
    host.signal(signal.SIGTERM)
    eventually(lambda: paused(host) == [True, True], "both to be paused while the flow goes on", log=host.said)
    host.kill()
    host.start()
    eventually(lambda: paused(host) == [False, False], "both to be resumed", log=host.said)


def test_a_restart_pauses_nothing(prefect3: PrefectServer, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        host = Host(url=prefect3.url, python=prefect3.python, environ={"NOTIFY_SOCKET": str(path)})
        try:
            main = (host.config / "runnerd.yaml").read_text()
            host.write_main(f"{main}stop: {{pause_schedules: true}}\n")
            host.drop_in("a.yaml", DROP_IN)
            host.start()
            host.registered(*NAMES)
            host.signal(signal.SIGTERM)  # without a job of systemd: handed over to the next daemon
            assert host.wait() == 75, host.said()
            assert paused(host) == [False, False]
        finally:
            host.close()
