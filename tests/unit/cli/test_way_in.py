"""runnerctl init and add: what is found on a host, the files that are written, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerd.cli.__main__ import main
from runnerd.cli.flow_files import file_name, locate
from runnerd.cli.host_facts import can_reach, find_api, find_interpreters, find_local_server, read_profile
from runnerd.cli.new_files import beginning, finish
from runnerd.config import HostDefaults, check
from runnerd.core.errors import RunnerdError
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.spawner import needs_root
from tests.kits.warm_host import a_venv

URL = "http://127.0.0.1:4711/api"
FLOW = "from prefect import flow\n\n@flow\ndef nightly(): ...\n\ndef other(): ...\n"
DEFAULTS = HostDefaults(hostname="h", python="/usr/bin/python3", flow_user="nobody")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's user, no daemon, and nothing in PATH."""
    for name in ("VIRTUAL_ENV", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PREFECT_API_URL", URL)
    monkeypatch.setenv("RUNNERD_SOCKET", str(tmp_path / "absent.sock"))
    monkeypatch.setenv("RUNNERD_FLOW_USER", "nobody")
    yield


def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(exist_ok=True)
    return folder


def called(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main([str(word) for word in argv])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def project(folder: Path, *, venv: bool = True) -> Path:
    """A folder with a flow in flows/etl.py, and mostly with a venv; the file."""
    if venv:
        a_venv(folder / ".venv").chmod(0o755)
    (folder / "flows").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    file = folder / "flows" / "etl.py"
    file.write_text(FLOW)
    return file


def init(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    return called(capsys, "init", "--config", etc(tmp_path), *more)


# --- init ---------------------------------------------------------------------------------------------------------


def test_init_writes_what_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = a_venv(tmp_path / "prefect")
    (tmp_path / "prefect/lib/python3.11/site-packages/prefect").mkdir()
    python.chmod(0o755)
    for place in (tmp_path, *tmp_path.parents):
        if place.owner() == tmp_path.owner():
            reachable = stat.S_IMODE(place.stat().st_mode) & 0o005 == 0o005
            monkeypatch.setenv("RUNNERD_FLOW_USER", "nobody" if reachable else tmp_path.owner())
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "prefect"))
    status, out, _ = init(tmp_path, capsys)
    assert status == 0, out
    file = tmp_path / "etc" / "runnerd.yaml"
    written = yaml.safe_load(file.read_text())
    assert written["api"] == {"url": URL}
    assert "next: runnerctl add FILE.py:FLOW" in out
    config, problems = check(str(tmp_path / "etc"), defaults=DEFAULTS)
    assert config is not None and problems == []
    assert (tmp_path / "etc" / "conf.d").is_dir()
    assert stat.S_IMODE(file.stat().st_mode) in (0o644, 0o640, 0o600)
    assert not [name for name in os.listdir(tmp_path / "etc") if name.startswith(".")]


def test_init_replaces_nothing_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = etc(tmp_path) / "runnerd.yaml"
    file.write_text("api: {url: 'http://old:4200/api', auth_string_file: /x}\n")
    status, out, err = init(tmp_path, capsys)
    assert (status, out) == (1, "")
    assert err == (
        f"runnerctl: cannot write {file}: it exists already;"
        f" runnerctl init --force replaces it, and keeps it as {file}.old\n"
    )
    assert "old" in file.read_text()
    assert init(tmp_path, capsys, "--force")[0] == 0
    assert yaml.safe_load(file.read_text())["api"]["url"] == URL
    assert "http://old" in Path(f"{file}.old").read_text()


def test_init_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = init(tmp_path, capsys, "--json", "--api-url", "http://elsewhere:4200/api/")
    document = json.loads(out)
    assert (status, document["ok"], document["written"]) == (0, True, True)
    assert (document["api_url"], document["api_url_from"]) == ("http://elsewhere:4200/api", "--api-url")
    assert document["file"] == str(tmp_path / "etc" / "runnerd.yaml")


@pytest.mark.parametrize("url", ["ftp://x", "http://user:hush@h/api", "http://h:4200", ""])
def test_init_with_a_url_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    status, _, err = init(tmp_path, capsys, "--api-url", url)
    assert status in (1, 2)
    assert err.count("\n") == 1 and "hush" not in err
    assert not (tmp_path / "etc" / "runnerd.yaml").exists()


def test_a_profile_of_prefect_and_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    profiles = tmp_path / "home" / ".prefect" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(
        'active = "work"\n[profiles.work]\nPREFECT_API_URL = "https://p.example/api"\nPREFECT_API_KEY = "hush"\n'
        '[profiles.other]\nPREFECT_API_URL = "http://other:4200/api"\n'
    )
    status, out, err = init(tmp_path, capsys)
    assert status == 0, err
    key = tmp_path / "etc" / "api-key"
    text = (tmp_path / "etc" / "runnerd.yaml").read_text()
    assert yaml.safe_load(text)["api"] == {"url": "https://p.example/api", "key_file": str(key)}
    assert "hush" not in out + err + text
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode) & 0o027) == ("hush\n", 0)
    found = read_profile(str(profiles), named="other")
    assert found is not None and (found.url, found.key) == ("http://other:4200/api", None)


@pytest.mark.parametrize("text", ["", "active = 3", "active = 'a'\nprofiles = 3", "[", "active='a'\n[profiles.a]\n"])
def test_a_profile_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "profiles.toml").write_text(text)
    assert read_profile(str(tmp_path / "profiles.toml"), named=None) is None
    assert read_profile(str(tmp_path), named=None) is None


def test_without_an_api_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    assert find_api({}, homes=[], server=lambda: None) is None
    found = find_api({}, homes=[], server=lambda: URL)
    assert found is not None and found.source == "a server on this host"


def test_a_server_on_this_host() -> None:
    with FakePrefect(major=3).serve() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        assert find_local_server(("127.0.0.1", port)) == f"http://127.0.0.1:{port}/api"
    assert find_local_server(("127.0.0.1", port)) is None


def test_interpreters_are_found_and_never_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in (".venv", "etl/.venv", "without/.venv"):
        python = a_venv(home / name)
        python.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        python.chmod(0o755)
        if not name.startswith("without"):
            (home / name / "lib/python3.11/site-packages/prefect").mkdir()
    found = find_interpreters({"PATH": "", "VIRTUAL_ENV": str(home / ".venv")}, homes=[str(home)])
    ours = {one.python: one.version for one in found if one.python.startswith(str(home))}
    assert ours == {f"{home}/.venv/bin/python": "3.9.1", f"{home}/etl/.venv/bin/python": "3.9.1"}
    assert not (tmp_path / "was-run").exists()


@needs_root
def test_an_interpreter_in_a_closed_folder_is_none_for_others(tmp_path: Path) -> None:
    python = a_venv(tmp_path / "closed")
    python.chmod(0o755)
    (tmp_path / "closed").chmod(0o700)
    assert can_reach(str(python), "root")
    assert not can_reach(str(python), "nobody")
    assert not can_reach(str(python), "no-such-user")


# --- add ----------------------------------------------------------------------------------------------------------


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


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_a_file_is_as_readable_as_its_directory(tmp_path: Path, folder_mode: int, mode: int) -> None:
    folder = etc(tmp_path)
    folder.chmod(folder_mode)
    path = str(folder / "a.yaml")
    with beginning(path, "a\n") as draft:
        assert os.path.basename(draft).startswith("."), "none of the daemon's files"
        finish(draft, path)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert os.listdir(folder) == ["a.yaml"]


def test_a_draft_that_is_not_finished_is_removed(tmp_path: Path) -> None:
    folder = etc(tmp_path)
    (folder / "a.yaml").write_text("old\n")
    with (
        pytest.raises(RunnerdError, match=r"a\.yaml exists already"),
        beginning(str(folder / "a.yaml"), "new\n") as one,
    ):
        finish(one, str(folder / "a.yaml"))
    assert (os.listdir(folder), (folder / "a.yaml").read_text()) == (["a.yaml"], "old\n")
    with pytest.raises(RunnerdError, match="cannot write"), beginning(str(folder / "none" / "a.yaml"), ""):
        raise AssertionError("there is no such directory")
