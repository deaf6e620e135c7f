"""What a real process of Prefect 3.9 says in its end is on record, and never believed against the API."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.kits.daemon import Host, serving
from tests.kits.nouns import Json
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server

# With the token of the run, the first flow's process says how that flow ended; the import then fails.
OTHER_FIRST = """
import os
from prefect import flow

@flow
def first():
    return 1

@flow
def main():
    return 2

if "PREFECT__FLOW_RUN_ID" in os.environ:
    first()
    raise SystemExit("it cannot be imported")
"""
DEPLOYMENTS = """
deployments:
  - {name: greet, entrypoint: "flows.py:greet"}
  - {name: fail, entrypoint: "flows.py:fail"}
  - {name: other-first, entrypoint: "other_first.py:main"}
"""


@pytest.fixture(scope="module")
def host(prefect3: PrefectServer) -> Iterator[Host]:
    host = Host(url=prefect3.url, python=prefect3.python)
    (host.config / "other_first.py").write_text(OTHER_FIRST)
    with serving(host, DEPLOYMENTS, "greet", "fail", "other-first") as host:
        yield host


def receipt_of(host: Host, run_id: str) -> Json:
    """What the journal has of it."""
    with sqlite3.connect(f"file:{host.root}/state/journal.db?mode=ro", uri=True) as journal:
        (document,) = (text for (text,) in journal.execute("SELECT record FROM runs WHERE id = ?", (run_id,)))
    return json.loads(document)["receipt"]


@pytest.mark.parametrize(("name", "state"), [("greet", "COMPLETED"), ("fail", "FAILED")])
def test_a_run_s_receipt_is_on_record(host: Host, name: str, state: str) -> None:
    run_id = host.run_now(name)
    assert host.ended(run_id)["api_state"] == state
    assert receipt_of(host, run_id) == {"state": state, "name": state.title()}


def test_the_receipt_of_another_flow_is_not_believed(host: Host) -> None:
    run_id = host.run_now("other-first")
    document = host.ended(run_id)
    assert receipt_of(host, run_id) == {"state": "COMPLETED", "name": "Completed"}
    assert (document["api_state"], document["exit"]["words"]) == ("CRASHED", "exited 0")
    assert host.api.state(run_id) == "CRASHED"
