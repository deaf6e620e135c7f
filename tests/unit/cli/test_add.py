"""runnerctl add: the drop-in of a flow, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerd.cli.flow_files import file_name, locate
from runnerd.config import check
from tests.kits.warm_host import a_venv
from tests.kits.way_in import DEFAULTS, FLOW, called, empty_environment, etc, init, project


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_environment(tmp_path, monkeypatch)


def add(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    return called(capsys, "add", *words, "--config", etc(tmp_path))


def drop_in(tmp_path: Path, name: str = "nightly.yaml") -> Any:
    (deployment,) = yaml.safe_load((tmp_path / "etc" / "conf.d" / name).read_text())["deployments"]
    return deployment


def test_add_takes_the_venv_of_the_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, capsys)
    file = project(tmp_path / "etl")
    status, out, err = add(tmp_path, capsys, f"{file}:nightly", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    assert status == 0, out + err
    assert drop_in(tmp_path) == {
        "name": "nightly",
        "entrypoint": "flows/etl.py:nightly",
        "schedules": [{"cron": "0 2 * * *", "timezone": "Europe/Berlin"}],
        "run": {"python": f"{tmp_path}/etl/.venv/bin/python", "working_directory": f"{tmp_path}/etl"},
    }
    assert "no runnerd is running" in err
    assert f"next: runnerd --config {tmp_path}/etc\n" in out
    config, problems = check(str(tmp_path / "etc"), defaults=DEFAULTS)
    assert config is not None and problems == []
    assert [one.name for one in config.deployments] == ["nightly"]
    assert os.listdir(tmp_path / "etc" / "conf.d") == ["nightly.yaml"]


@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        (("--interval", "3600"), {"interval": 3600}),
        (("--interval", "10m"), {"interval": "10m"}),
        (("--rrule", "FREQ=DAILY;BYHOUR=9"), {"rrule": "FREQ=DAILY;BYHOUR=9"}),
    ],
)
def test_other_schedules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], schedule: object
) -> None:
    init(tmp_path, capsys)
    file = project(tmp_path / "etl", venv=False)
    assert add(tmp_path, capsys, f"{file}:nightly", *words)[0] == 0
    assert drop_in(tmp_path)["schedules"] == [schedule]
    assert "python" not in drop_in(tmp_path)["run"], "that of the host"


def test_a_second_one_of_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, capsys)
    file = project(tmp_path / "etl", venv=False)
    assert add(tmp_path, capsys, f"{file}:nightly")[0] == 0
    status, out, err = add(tmp_path, capsys, f"{file}:other", "--name", "nightly")
    assert (status, out) == (1, "")
    assert err == (
        f"runnerctl: cannot add nightly: a deployment of this name is at {tmp_path}/etc/conf.d/nightly.yaml:3:3;"
        " give this one another name with --name, or edit that file\n"
    )
    assert drop_in(tmp_path)["entrypoint"] == "etl.py:nightly"
    assert add(tmp_path, capsys, f"{file}:other")[0] == 0


def test_a_file_that_is_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, capsys)
    taken = tmp_path / "etc" / "conf.d" / "nightly.yaml"
    taken.write_text("# mine\n")
    status, _, err = add(tmp_path, capsys, f"{project(tmp_path / 'etl', venv=False)}:nightly")
    assert (status, "it exists already" in err) == (1, True)
    assert taken.read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 25 * * *"), "cron"),
        (("--interval", "soon"), "interval"),
        (("--user", "no-such-user"), "no such user"),
        (("--cron", "@daily", "--timezone", "Mars/North"), "timezone"),
    ],
)
def test_what_config_check_refuses_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    init(tmp_path, capsys)
    status, out, err = add(tmp_path, capsys, f"{project(tmp_path / 'etl', venv=False)}:nightly", *words)
    assert status == 1
    assert out.startswith(f"{tmp_path}/etc/conf.d/nightly.yaml:") and said in out
    assert "was not written" in err
    assert os.listdir(tmp_path / "etc" / "conf.d") == []
    document = json.loads(add(tmp_path, capsys, f"{tmp_path}/etl/flows/etl.py:nightly", *words, "--json")[1])
    assert (document["ok"], document["written"], len(document["problems"])) == (False, False, 1)


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ("etl.py:nightlly", "the file defines no nightlly; did you mean nightly?"),
        ("etl.py:zzz", "it defines nightly, other"),
        ("gone.py:flow", "No such file or directory"),
        ("etl.py", "write FILE.py:FLOW"),
        ("etl.txt:flow", "write FILE.py:FLOW"),
        (".:flow", "write FILE.py:FLOW"),
        ("folder.py:flow", "not a regular file"),
    ],
)
def test_a_flow_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flow: str, said: str
) -> None:
    init(tmp_path, capsys)
    file = project(tmp_path / "etl", venv=False)
    (file.parent / "folder.py").mkdir()
    monkeypatch.chdir(file.parent)
    status, out, err = add(tmp_path, capsys, flow)
    assert status in (1, 2)
    assert (out, said in err, err.count("\n")) == ("", True, 1)


def test_what_a_file_may_define_in_other_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path, capsys)
    file = tmp_path / "etl.py"
    for number, text in enumerate(
        ["nightly = 3", "from a import b as nightly", "from a import *", "if True:\n    def nightly(): ...", "def ("]
    ):
        file.write_text(text)
        assert add(tmp_path, capsys, f"{file}:nightly", "--name", f"n{number}")[0] == 0, text


def test_a_venv_that_others_could_have_made_is_not_taken(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    a_venv(shared / ".venv").chmod(0o755)
    (shared / "mine").mkdir()
    file = shared / "mine" / "etl.py"
    file.write_text(FLOW)
    assert locate(str(file), "nightly").python == f"{shared}/.venv/bin/python"
    shared.chmod(0o777)
    found = locate(str(file), "nightly")
    assert (found.python, found.directory, found.entrypoint) == (None, f"{shared}/mine", "etl.py:nightly")


def test_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path / "etl", venv=False)
    status, _, err = called(capsys, "add", f"{file}:nightly", "--config", tmp_path / "none")
    assert (status, "runnerctl init makes it" in err) == (1, True)
    (etc(tmp_path) / "runnerd.yaml").write_text("limits: 3\n")
    status, _, err = add(tmp_path, capsys, f"{file}:nightly")
    assert (status, "runnerd.yaml:1:" in err) == (1, True)


def test_names_of_files() -> None:
    assert [file_name(name) for name in ("nightly", "a b/c", "..", "Über", ".x")] == [
        "nightly.yaml", "a-b-c.yaml", "deployment.yaml", "ber.yaml", "x.yaml",
    ]  # fmt: skip
