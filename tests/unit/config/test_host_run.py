"""The host's own run:, by which runs of no deployment or pool of this host are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.config import HostDefaults, load

DEFAULTS = HostDefaults(hostname="h", python="/usr/bin/python3", flow_user="nobody")
API = "api: {url: 'http://127.0.0.1:4200/api'}\n"


@pytest.mark.parametrize(
    ("said", "user", "directory", "scratch"),
    [
        ("", "nobody", None, True),
        ("run: {user: root, working_directory: /srv}\n", "root", "/srv", False),
    ],
)
def test_what_the_files_say(tmp_path: Path, said: str, user: str, directory: str | None, scratch: bool) -> None:
    (tmp_path / "runnerd.yaml").write_text(API + said)
    found = load(str(tmp_path), defaults=DEFAULTS).host_run
    assert found is not None
    assert (found.run.user, found.run.python, found.scratch) == (user, "/usr/bin/python3", scratch)
    assert found.run.working_directory == (directory or str(tmp_path))


def test_a_drop_in_adds_to_it_and_a_deployment_does_not(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "runnerd.yaml").write_text(f"{API}run: {{environment: {{A: '1'}}}}\n")
    (tmp_path / "conf.d" / "10.yaml").write_text(
        "run: {environment: {B: '2'}}\ndeployments: [{name: a, entrypoint: 'm:f', run: {environment: {C: '3'}}}]\n"
    )
    found = load(str(tmp_path), defaults=DEFAULTS).host_run
    assert found is not None
    assert found.run.environment == {"A": "1", "B": "2"}
