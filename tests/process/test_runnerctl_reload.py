"""runnerctl reload against the real control server: what it prints of the answer, and while that takes long."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.fakes.runnerctl import COMMAND, PATIENCE_S, environment, finish, runnerctl, started
from tests.kits.fakes.serving import Serving, serving

PARTLY = (
    "the configuration is in force, except for what has a problem: of that, the last good version stays in force"
    " where there is one"
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def test_a_reload_with_problems_fails_and_shows_them(served: Serving) -> None:
    problem = {"message": "unknown key", "file": "a.yaml", "line": 1, "column": 2, "deployment": None}
    served.host.reloaded = {**served.host.reloaded, "ok": False, "problems": [problem]}
    result = runnerctl(served, "reload")
    assert result.status == 1
    assert result.err.splitlines() == [
        "a.yaml:1:2: unknown key",
        f"runnerctl: {PARTLY}",
    ]
    as_json = runnerctl(served, "reload", "--json")
    assert (as_json.status, as_json.err, json.loads(as_json.out)) == (1, "", served.host.reloaded)


def test_a_reload_that_applied_nothing_says_so_and_nothing_else(served: Serving) -> None:
    problem = {"message": "unknown key", "file": "runnerd.yaml", "line": 1, "column": 2, "deployment": None}
    none: dict[str, object] = {"added": [], "changed": [], "removed": [], "unchanged": 0}
    served.host.reloaded = {**none, "ok": False, "applied": False, "settings": [], "pools": none, "problems": [problem]}
    result = runnerctl(served, "reload")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines() == [
        "runnerd.yaml:1:2: unknown key",
        "runnerctl: nothing of the configuration was applied; the last good configuration stays in force",
    ]


def test_a_reload_names_the_changed_keys_of_the_host(served: Serving) -> None:
    place = {"file": "runnerd.yaml", "line": 1, "column": 2}
    values = [("limits.runs", 4, 8), ("control.admins", None, ["wheel", "dev"]), ("control.readers", ["x"], [])]
    settings = [{"key": key, "old": old, "new": new, "restart": False, **place} for key, old, new in values]
    settings.append({"key": "api.url", "old": "http://a/api", "new": "http://b/\x1b[31m", "restart": True, **place})
    served.host.reloaded = {**served.host.reloaded, "settings": settings}
    assert runnerctl(served, "reload").out.splitlines()[:5] == [
        "changed  limits.runs: 4 -> 8",
        "changed  control.admins: unset -> wheel, dev",
        "changed  control.readers: x -> none",
        "changed  api.url: http://a/api -> http://b/?[31m, at a restart of runnerd",
        "added    fresh",
    ]
    del served.host.reloaded["settings"], served.host.reloaded["applied"]
    assert runnerctl(served, "reload").out.startswith("added    fresh\n"), "an older daemon"


def until_shown(terminal: int, words: str) -> str:
    """Read what a terminal shows until that has `words`."""
    shown = ""
    while words not in shown:
        shown += os.read(terminal, 4096).decode()
    return shown


@pytest.mark.parametrize(
    ("words", "notice"),
    [
        (("pool", "ls"), "waiting for the API of Prefect at http://127.0.0.1:4200/api"),
        (("reload",), "waiting for flows to be inspected, and the API of Prefect at http://127.0.0.1:4200/api"),
    ],
)
def test_a_long_wait_is_explained_on_a_terminal_only(served: Serving, words: tuple[str, ...], notice: str) -> None:
    served.host.prefect.mute, served.host.mute = True, True
    ours, its = pty.openpty()
    env = environment(RUNNERD_SOCKET=served.socket)
    with started(served, *words, "--json") as script:
        with subprocess.Popen([*COMMAND, *words], stdin=its, stdout=its, stderr=its, env=env) as person:
            os.close(its)
            try:
                shown = until_shown(ours, f"runnerctl: {notice}\r\n")
                assert shown.startswith("runnerctl: "), "said before the answer"
            finally:
                served.host.prefect.mute, served.host.mute = False, False
            assert person.wait(PATIENCE_S) == 0
        result = finish(script)
    os.close(ours)
    assert (result.status, result.err) == (0, "")
