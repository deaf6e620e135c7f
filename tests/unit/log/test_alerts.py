"""alerts.py: every alert has an id of its own, is logged somewhere, and is explained in the catalog."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest

from runnerd.core.errors import ApiDenied
from runnerd.core.machine import Intent, Phase, RunRecord
from runnerd.core.prefect import ApiCondition, ApiHealth, StateType
from runnerd.core.process import Exit
from runnerd.log.alerts import Alert, alert_of_api, alert_of_run
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from tests.kits.nouns import NOON, URL, UnclosableClient, a_record
from tests.kits.structure import PACKAGE, ROOT

CATALOG = ROOT / "packaging" / "systemd" / "runnerd.catalog"


def entries() -> dict[str, str]:
    """What the catalog says of each id."""
    parts = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(parts[::2]) == len(set(parts[::2]))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_catalog_explains_every_id_and_no_other() -> None:
    assert set(entries()) == {alert.value for alert in Alert}


@pytest.mark.parametrize("alert", list(Alert))
def test_an_explanation_says_what_happened(alert: Alert) -> None:
    header, _, text = entries()[alert].partition("\n\n")
    names = [line.partition(": ")[0] for line in header.splitlines()]
    assert names[:2] == ["Subject", "Defined-By"]
    assert set(names[2:]) <= {"Documentation"}
    assert len(text.strip()) > 40
    assert max(map(len, text.splitlines())) <= 80
    # journalctl shows @NAME@ as it stands where an entry has no such field
    assert set(re.findall(r"@(\w+)@", header + text)) <= {
        f"RUNNERD_{name}" for name in "RUN_ID DEPLOYMENT URL AT TO STUCK OUTPUT".split()
    }


@pytest.mark.parametrize("alert", list(Alert))
def test_everything_one_may_alert_on_is_said_somewhere(alert: Alert) -> None:
    said = [path for path in PACKAGE.rglob("*.py") if f"Alert.{alert.name}" in path.read_text(encoding="utf-8")]
    assert said


def test_ids_are_ones_systemd_takes() -> None:
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", alert) for alert in Alert)
    assert len({alert.value for alert in Alert}) == len(Alert.__members__)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="needs journalctl")
def test_journalctl_reads_the_catalog(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/catalog/runnerd.catalog"
    place.parent.mkdir(parents=True)
    shutil.copy(CATALOG, place)
    root = f"--root={tmp_path}"
    made = subprocess.run(["journalctl", root, "--update-catalog"], capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    shown = subprocess.run(["journalctl", root, "--list-catalog"], capture_output=True, text=True)
    assert len(shown.stdout.splitlines()) == len(Alert), shown


# --- which is which ---------------------------------------------------------------------------------------------


def a_run(phase: Phase, *, state: StateType | None = None, oom: bool = False, **changes: object) -> RunRecord:
    return a_record(phase=phase, api_state=state, exit=Exit(signal=9, oom=oom), **changes)


@pytest.mark.parametrize(
    ("record", "alert"),
    [
        (a_run(Phase.DONE, state=StateType.CRASHED), Alert.RUN_CRASHED),
        (a_run(Phase.REPORTING), None),  # it may have finished first
        (a_run(Phase.DONE, state=StateType.COMPLETED), None),
        (a_run(Phase.DONE, state=StateType.FAILED), None),  # the flow's own business
        (a_run(Phase.DONE, state=None), None),  # gone from the API
        (a_run(Phase.DONE, state=StateType.CANCELLED, intent=Intent.CANCEL), None),
        (a_run(Phase.DONE, state=StateType.CRASHED, intent=Intent.EVICT), None),  # as stop.then wants it
        (a_run(Phase.REPORTING, oom=True), Alert.RUN_OUT_OF_MEMORY),
        (a_run(Phase.DONE, state=StateType.CRASHED, oom=True), None),  # said before
        (a_run(Phase.STOPPING, intent=Intent.TIMEOUT), None),
        (a_run(Phase.REPORTING, intent=Intent.TIMEOUT), Alert.RUN_TIMED_OUT),
        (a_run(Phase.DONE, state=StateType.FAILED, intent=Intent.TIMEOUT), None),
        (a_record(phase=Phase.RUNNING), None),
    ],
)
def test_runs(record: RunRecord, alert: Alert | None) -> None:
    assert alert_of_run(record) is alert


@pytest.mark.parametrize(
    ("condition", "detail", "alert"),
    [
        (ApiCondition.OK, "the API answers", Alert.API_OK),
        (ApiCondition.UNREACHABLE, "connection refused", Alert.API_UNREACHABLE),
        (ApiCondition.MAINTENANCE, "in maintenance", Alert.API_MAINTENANCE),
        (ApiCondition.DEGRADED, "503 from GET /health", Alert.API_DEGRADED),
    ],
)
def test_the_api(condition: ApiCondition, detail: str, alert: Alert) -> None:
    assert alert_of_api(ApiHealth(condition=condition, since=NOON, detail=detail)) is alert


@pytest.mark.parametrize("status", [401, 403])
async def test_an_api_that_refuses_us_is_mended_here(status: int) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json={"detail": "no"}))
    client = UnclosableClient(transport=transport, verify=False)
    api = PrefectApi(url=URL, credentials=Credentials, headers={}, timeout_s=60, now=lambda: NOON, client=client)
    with pytest.raises(ApiDenied):
        await api.read_run(str(uuid.uuid4()))
    assert alert_of_api(api.health) is Alert.API_DENIED
