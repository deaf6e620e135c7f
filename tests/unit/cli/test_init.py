"""runnerctl init: what is found on a host, the files that are written, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from runnerd.cli.host_facts import can_reach, find_api, find_interpreters, find_local_server, read_profile
from runnerd.cli.new_files import beginning, finish
from runnerd.cli.verbs.init import has_no_settings
from runnerd.config import check
from runnerd.core.errors import RunnerdError
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.spawner import needs_root
from tests.kits.warm_host import a_venv
from tests.kits.way_in import DEFAULTS, URL, empty_environment, etc, init


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_environment(tmp_path, monkeypatch)


def test_init_writes_what_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = a_venv(tmp_path / "prefect")
    (tmp_path / "prefect/lib/python3.11/site-packages/prefect").mkdir()
    python.chmod(0o755)
    monkeypatch.setenv("RUNNERD_FLOW_USER", tmp_path.owner())
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "prefect"))
    status, out, _ = init(tmp_path, capsys)
    assert status == 0, out
    file = tmp_path / "etc" / "runnerd.yaml"
    written = yaml.safe_load(file.read_text())
    assert written == {"api": {"url": URL}, "run": {"python": str(python)}}
    assert f"{python} (Prefect 3.9.1)" in out
    assert f"next: runnerctl add --config {tmp_path}/etc FILE.py:FLOW" in out
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


@pytest.mark.parametrize("text", ["", "# comments\n\n# run:\n", "---\n", "{}\n"])
def test_init_replaces_a_file_without_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    file = etc(tmp_path) / "runnerd.yaml"
    file.write_text(text)
    status, out, err = init(tmp_path, capsys)
    assert status == 0, err
    assert yaml.safe_load(file.read_text())["api"]["url"] == URL
    assert f"kept the file that was there as {file}.old" in out
    assert Path(f"{file}.old").read_text() == text


def test_init_replaces_the_file_of_the_package_as_it_was_installed(tmp_path: Path) -> None:
    ours, packaged = tmp_path / "runnerd.yaml", tmp_path / "packaged"
    packaged.write_text("api: {url: 'http://127.0.0.1:4200/api'}\n")
    ours.write_text(packaged.read_text())
    assert has_no_settings(str(ours), packaged=str(packaged))
    assert not has_no_settings(str(ours), packaged=str(tmp_path / "none")), "then nobody knows whose it is"
    ours.write_text(packaged.read_text() + "limits: {runs: 3}\n")
    assert not has_no_settings(str(ours), packaged=str(packaged))


@pytest.mark.parametrize("text", ["api: [", "\udcff", "- a\n", "name: x\n"])
def test_a_file_that_somebody_wrote_has_settings(tmp_path: Path, text: str) -> None:
    file = tmp_path / "runnerd.yaml"
    file.write_text(text, errors="surrogateescape")
    assert not has_no_settings(str(file))
    file.unlink()
    (tmp_path / "empty").touch()
    file.symlink_to("empty")
    assert not has_no_settings(str(file)), "who made the link wants it"


def test_init_replaces_no_other_key_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hush")
    key = etc(tmp_path) / "api-key"
    key.write_text("of the administrator\n")
    key.chmod(0o600)
    status, out, err = init(tmp_path, capsys)
    assert (status, out) == (1, "")
    assert f"cannot write {key}: it exists already" in err and "hush" not in err
    assert not (tmp_path / "etc" / "runnerd.yaml").exists()
    status, out, _ = init(tmp_path, capsys, "--force", "--json")
    assert json.loads(out)["kept"] == [f"{key}.old"]
    old = Path(f"{key}.old")
    assert (key.read_text(), old.read_text()) == ("hush\n", "of the administrator\n")
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    status, out, _ = init(tmp_path, capsys, "--force", "--json")
    assert json.loads(out)["kept"] == [str(tmp_path / "etc" / "runnerd.yaml.old")], "the same key is no other"


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


# --- files -------------------------------------------------------------------------------------------------------


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
