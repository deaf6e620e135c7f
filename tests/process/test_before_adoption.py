"""What is asked of a daemon before it has adopted its runs is not lost: it waits for the spawner, and so do we."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Json
from runnerd.journal.journal import Journal
from tests.kits.daemon import GENEROUS_S, Host, eventually
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import LogLines, log_to


class Waiting(Host):
    """A host whose spawner accepts connections and never says a word, and whose journal has a run to adopt."""

    def __init__(self, prefect: FakePrefect, url: str) -> None:
        super().__init__(url=url, python=sys.executable)
        directory = self.root / "run-spawner"
        directory.mkdir()
        self.mute = socket.socket(socket.AF_UNIX)
        self.mute.bind(str(directory / "spawner.sock"))
        self.mute.listen()
        self.prefect = prefect
        self.client = ControlClient(str(self.root / "run" / "control.sock"), timeout_s=GENEROUS_S)

    def leave_claiming(self) -> str:
        """A run of which the last daemon wrote that it claims it, and died."""
        flow = self.api.call("POST", "/flows/", {"name": "sleep"})
        body = {"name": "sleep", "flow_id": flow["id"]}
        run_id = self.prefect.add_run(self.api.call("POST", "/deployments/", body)["id"])
        (self.root / "state").mkdir()
        journal = Journal(
            path=str(self.root / "state" / "journal.db"), now=lambda: datetime.now(UTC), log=log_to(LogLines())
        )
        record = RunRecord(
            id=run_id, name="mine", deployment_id=None, deployment="?", flow="?", phase=Phase.CLAIMING,
            transition_id=run_id, created_at=datetime.now(UTC),
        )  # fmt: skip
        journal.save(record, "claiming")
        journal.close()
        return run_id

    def launch(self) -> None:
        """As `start`, and it is not ready."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )
        eventually(self.answers, "the daemon to answer")

    def answers(self) -> bool:
        return self.ctl("version").returncode == 0

    def post(self, path: str, body: Json) -> Json:
        """Ask until it is not too early any more."""
        while True:
            try:
                return self.client.post(path, body)
            except ControlError as error:
                if error.status != 503:
                    raise


@pytest.fixture
def host() -> Iterator[Waiting]:
    prefect = FakePrefect(major=3)
    with prefect.serve() as url:
        host = Waiting(prefect, url)
        try:
            yield host
        finally:
            host.mute.close()
            host.close()


@pytest.mark.parametrize("body", [{"all": True}, {"runs": ["mine"], "now": True}], ids=["all", "by name"])
def test_a_cancel_is_kept(host: Waiting, body: Json) -> None:
    run_id = host.leave_claiming()
    host.launch()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(host.post, "/v1/cancel", body)
        eventually(host.answers, "the daemon to have heard it")
        host.mute.close()
        assert [its["id"] for its in asked.result(GENEROUS_S)["runs"]] == [run_id]
    eventually(lambda: host.prefect.state_of(run_id) == "CANCELLED", "the cancel", log=host.said)
