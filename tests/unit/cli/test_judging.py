"""judging.py: by which environment files are judged, and that a list of the shell is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.cli.judging import Judging, find_judging
from runnerd.control.client import ControlClient

SHELL = {"RUNNERD_FLOW_USERS": "root,nobody", "RUNNERD_FLOW_USER": "nobody", "PREFECT_API_URL": "http://a:4200/api"}


def judge(folder: Path, *, service: dict[str, str], root: bool = True) -> Judging:
    client = ControlClient(str(folder / "absent.sock"))
    return find_judging(client, str(folder), environ=SHELL, service=service, root=root)


def test_the_environment_of_the_shell_is_named(tmp_path: Path) -> None:
    judging = judge(tmp_path, service={})
    assert (judging.source, judging.defaults.flow_user) == ("environment", "nobody")
    words = judging.describe()
    assert words is not None
    assert words.startswith(
        "users of flows are judged by the environment of this shell (nobody,root), because no runnerd"
    )
    assert judge(tmp_path, service={}, root=False).describe() is None, "as whom flows may be started is unknown"


@pytest.mark.parametrize("listed", ["etl", None])
def test_of_the_units_nothing_is_mixed_with_the_shells(tmp_path: Path, listed: str | None) -> None:
    service = {"RUNNERD_SPAWNER_SOCKET": "/s", **({"RUNNERD_FLOW_USERS": listed} if listed else {})}
    judging = judge(tmp_path, service=service)
    users = judging.defaults.users
    assert (judging.source, judging.defaults.flow_user, judging.describe()) == ("units", None, None)
    assert (users.describe() if users else None) == listed
    assert judging.defaults.api_url == "http://a:4200/api"
