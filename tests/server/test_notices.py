"""Notices, and commands before and after runs, with a whole runnerd and real Prefect servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.notices import Receiver
from tests.kits.prefect_servers import PrefectServer

SLOW = """
  - {{name: noticed-slow, entrypoint: "flows.py:greet", run: {{before: [sleep, "600"], before_timeout: 10m}}}}
"""
NOTICED = """
deployments:
  - name: noticed-fail
    entrypoint: "flows.py:fail"
    notices:
      on_failure:
        - {{command: [/bin/sh, -c, "cat >> {root}/notes; echo $1 >> {root}/names", note, "{{{{ run.name }}}}; x"]}}
        - {{post: "{url}/secret-path", template: slack}}
  - {{name: noticed-leave, entrypoint: "flows.py:leave"}}
  - name: noticed-kept
    entrypoint: "flows.py:greet"
    run: {{before: [/bin/sh, -c, "echo checking; echo the mount is gone >&2; exit 3"]}}
"""
AROUND = """
deployments:
  - name: noticed-around
    entrypoint: "flows.py:greet"
    run:
      before: [/bin/sh, -c, "cat > {root}/before; pwd >> {root}/before"]
      after: [/bin/sh, -c, "cat > {root}/after; exit 5"]
"""
LATE = """
deployments:
  - name: noticed-often
    entrypoint: "flows.py:greet"
    schedules: [{{interval: 5s}}]
    run: {{limit: 1, before: [sleep, "600"], before_timeout: 10m}}
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture
def host(prefect: PrefectServer, receiver: Receiver) -> Iterator[Host]:
    """Not started."""
    host = Host(url=prefect.url, python=prefect.python)
    host.root.chmod(0o777)
    events = f"{{on_crash: [{{post: '{receiver.url}/crash'}}], on_cancel: [{{post: '{receiver.url}/cancel'}}]}}"
    host.write_main((host.config / "runnerd.yaml").read_text() + f"notices: {events}\n")
    try:
        yield host
    finally:
        host.close()


def start(host: Host, receiver: Receiver, deployments: str, *names: str) -> None:
    host.drop_in("10-test.yaml", (deployments + SLOW.removeprefix("\n")).format(root=host.root, url=receiver.url))
    host.start()
    host.registered(*names, "noticed-slow")


def received(receiver: Receiver, path: str, run_id: str, host: Host) -> Any:
    """The request to this path about the run, once it is there."""

    def look() -> Any:
        return next((one for one in list(receiver.received) if one.path == path and run_id in one.body), None)

    return eventually(look, f"a notice of {run_id} at {path}", log=host.said)


def test_a_failure_a_crash_and_a_cancel_are_notified(host: Host, receiver: Receiver) -> None:
    start(host, receiver, NOTICED, "noticed-fail", "noticed-leave", "noticed-kept")
    receiver.statuses = [503]
    failed = host.run_now("noticed-fail")
    name = host.ended(failed)["name"]
    slack = eventually(lambda: len(receiver.received) >= 2 and receiver.received[1], "the repeated post", log=host.said)
    assert slack.json["text"].startswith(f"fail/noticed-fail: run {name} failed on ")
    notes = eventually(lambda: (host.root / "names").exists() and (host.root / "notes").read_text(), "the command")
    assert (host.root / "names").read_text() == f"{name}; x\n"
    document = json.loads(notes)
    assert (document["id"], document["api_state"], document["event"]) == (failed, "FAILED", "on_failure")
    assert "secret-path" not in host.said()

    crashed = host.run_now("noticed-leave")
    assert received(receiver, "/crash", crashed, host).json["words"] == "exited 7"

    kept = host.run_now("noticed-kept")
    words = "could not start: run.before: /bin/sh: exited 3: the mount is gone"
    assert received(receiver, "/crash", kept, host).json["words"] == words
    assert host.api.run(kept)["state"]["message"] == words
    assert "checking" in host.ctl("logs", kept).stdout

    slow = host.run_now("noticed-slow")
    eventually(lambda: host.document(slow)["waiting"] == "run.before: sleep", "the command before", log=host.said)
    host.api.cancel(slow)
    assert received(receiver, "/cancel", slow, host).json["api_state"] == "CANCELLED"
    assert host.json("status")["notices"] == []


def test_commands_around_a_run_and_over_a_restart_of_the_daemon(host: Host, receiver: Receiver) -> None:
    start(host, receiver, AROUND, "noticed-around")
    around = host.run_now("noticed-around")
    document = host.ended(around)
    assert document["api_state"] == "COMPLETED"
    assert document["exit"]["words"] == "exited 0; run.after: /bin/sh: exited 5"
    text, directory = (host.root / "before").read_text().splitlines()
    assert (json.loads(text)["id"], directory) == (around, str(host.config))
    assert json.loads((host.root / "after").read_text())["api_state"] == "COMPLETED"

    slow = host.run_now("noticed-slow")
    eventually(lambda: host.document(slow)["waiting"] == "run.before: sleep", "the command before", log=host.said)
    host.kill()
    host.start()
    eventually(lambda: host.document(slow)["waiting"] == "run.before: sleep", "it to go on", log=host.said)
    host.ctl("cancel", slow, "--wait")
    assert host.api.state(slow) == "CANCELLED"


def test_a_run_that_waits_is_late(host: Host, receiver: Receiver) -> None:
    main = (host.config / "runnerd.yaml").read_text()
    host.write_main(main.replace("{on_crash:", f"{{on_late: [{{post: '{receiver.url}/late'}}], on_crash:"))
    host.drop_in("20-late.yaml", "late: {after: 2s}\n")
    start(host, receiver, LATE, "noticed-often")

    def late() -> Any:
        return next((one for one in list(receiver.received) if one.path == "/late"), None)

    document = eventually(late, "a run that waits for the first to be late", log=host.said).json
    assert (document["event"], document["deployment"]) == ("on_late", "noticed-often")
    assert document["words"].startswith("has not begun; it fell due at ")
    assert host.api.state(document["id"]) == "SCHEDULED"
