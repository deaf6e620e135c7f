"""`scripts:` of a drop-in, and the deployments of what scripts serve, which is hostile until it is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config.script_entries import enter_scripts
from runnerd.core.codec import Decoder, to_json
from runnerd.core.place import Json, Place
from runnerd.core.recording import Recorded, Recording, RecordingFailure, Said, Served
from runnerd.core.settings import Config
from tests.kits.config import DEFAULTS, ConfigDir

DROP_IN = """
    scripts:
      - {path: flows/serve.py, run: {limit: 7, environment: {A: '1'}}}
"""


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    etc = ConfigDir(tmp_path / "etc")
    (etc.etc / "flows" / "serve.py").write_text("# serves\n")
    etc.write("conf.d/10.yaml", DROP_IN)
    return etc


def entry(name: str, **more: Json) -> dict[str, Json]:
    return {"name": name, "entrypoint": "flows/etl.py:nightly", **more}


def recorded(*entries: dict[str, Json], left_out: tuple[Said, ...] = ()) -> Recording:
    served = tuple(Served(one, 10 + number) for number, one in enumerate(entries))
    return Recording(prefect_version="3.9.1", served=served, left_out=left_out)


def entered(etc: ConfigDir, outcome: Recorded | None, before: Config | None = None) -> Config:
    of_files = etc.load(last_good=before)
    outcomes = {} if outcome is None else {of_files.scripts[0].file: outcome}
    in_force = before or of_files
    return enter_scripts(of_files, in_force.deployments, outcomes, directory=str(etc.etc), defaults=DEFAULTS)


def names(config: Config) -> list[str]:
    return [one.name for one in config.deployments]


def test_a_script_has_the_run_section_of_its_entry_over_the_hosts(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "api: {url: http://127.0.0.1:4200/api}\nrun: {nice: 5, environment: {B: '2'}}\n")
    config = etc.load()
    assert config.problems == ()
    (script,) = config.scripts
    assert script.file == str(etc.etc / "flows" / "serve.py")
    assert script.place == Place(str(etc.etc / "conf.d" / "10.yaml"), 3, 5)
    assert (script.run.limit, script.run.nice, script.run.environment) == (7, 5, {"A": "1", "B": "2"})


def test_its_deployments_are_those_of_a_drop_in_at_the_scripts_line(etc: ConfigDir) -> None:
    config = entered(
        etc,
        recorded(
            entry("a", schedules=[{"cron": "0 2 * * *"}], tags=["x"], parameters={"region": "eu"}),
            entry("b", run={"limit": 2, "environment": {"C": "3"}}, paused=True),
        ),
    )
    assert config.problems == config.warnings == ()
    a, b = config.deployments
    assert (a.name, a.place) == ("a", Place(str(etc.etc / "flows" / "serve.py"), 10, 1))
    assert (a.schedules[0].cron, a.tags, a.parameters) == ("0 2 * * *", ("x",), {"region": "eu"})
    assert (a.run.limit, a.run.environment) == (7, {"A": "1"})
    assert (b.run.limit, b.run.environment, b.paused) == (2, {"A": "1", "C": "3"}, True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("scripts: [{run: {limit: 1}}]", "10.yaml:1:11: a script needs 'path'"),
        (
            "scripts: [{path: serve.sh}]",
            "path must be the path of a Python file, such as flows/serve.py, not 'serve.sh'",
        ),
        ("scripts: [{path: flows/none.py}]", "10.yaml:1:18: path flows/none.py: no such file under"),
        ("scripts: [{path: flows/serve.py, user: x}]", "unknown key 'user' in a script"),
        (
            "scripts: [{path: flows/serve.py}, {path: ./flows/serve.py}]",
            "script './flows/serve.py' is already listed at",
        ),
    ],
)
def test_a_wrong_entry_is_a_problem_with_its_place(etc: ConfigDir, text: str, problem: str) -> None:
    etc.write("conf.d/10.yaml", f"{text}\n")
    (found,) = etc.problems()
    assert problem in found


def test_what_this_version_lacks_is_left_out_with_a_warning(etc: ConfigDir) -> None:
    served = recorded(entry("a", sla=[{"name": "x"}], unheard_of={"a": 1}), left_out=(Said("webserver=True: no", 3),))
    config = entered(etc, served)
    assert names(config) == ["a"]
    assert config.problems == ()
    words = etc.words(config.warnings)
    assert any("flows/serve.py:10:1: sla is not carried over: sla: not supported" in one for one in words)
    assert any("flows/serve.py:10:1: unheard_of is not carried over: unknown key" in one for one in words)
    assert "flows/serve.py:3:1: webserver=True: no" in words


def test_a_wrong_entry_affects_no_other(etc: ConfigDir) -> None:
    config = entered(etc, recorded(entry("a/b"), entry("c"), {"name": "d"}, entry("e", entrypoint="none.py:f")))
    assert names(config) == ["c"]
    words = "\n".join(etc.words(config.problems))
    for said in ("flows/serve.py:10:1: name must be text without /", "serve.py:12:1: a deployment needs 'entrypoint'",
                 "serve.py:13:1: entrypoint none.py: no such file"):  # fmt: skip
        assert said in words


def test_hostile_answers_are_entries_like_any_other(etc: ConfigDir) -> None:
    deep: Json = "end"
    for _ in range(500):
        deep = {"x": [deep]}
    config = entered(
        etc,
        recorded(
            entry("deep", parameters=deep),
            entry("\x1b[31m"),
            entry("users", run={"user": "no-such-user"}),
            entry("lists", tags="x", run=[1], schedules={"cron": "* * * * *"}),
        ),
    )
    assert set(names(config)) <= {"deep", "users"}
    assert all(str(problem).isprintable() for problem in (*config.problems, *config.warnings))


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ({"run": {"user": "root", "limit": 2}}, "run.user"),
        ({"run": {"environment_file": "/etc/shadow", "limit": 2}}, "run.environment_file"),
        ({"run": {"before": ["id"], "limit": 2}}, "run.before"),
        ({"notices": {"on_failure": [{"post": "http://h/", "token_file": "/etc/shadow"}]}}, "notices"),
        ({"command": ["id"]}, "command"),
        ({"\x1b[31m": 1}, "31m"),
        ({"source": {"remote": "s3://b/f", "git": None, "directory": "/"}}, "source.directory"),
    ],
)
def test_a_script_decides_neither_as_whom_it_runs_nor_what_the_daemon_reads(
    etc: ConfigDir, said: dict[str, Json], left_out: str
) -> None:
    config = entered(etc, recorded(entry("a", **said)))
    (one,) = config.deployments
    assert (one.run.user, one.run.environment_file, one.run.before) == (None, None, ())
    assert (one.command, one.notices) == (None, {})
    words = etc.words(config.warnings)
    assert any(left_out in word and "is not carried over: unknown key" in word for word in words)
    assert all(word.isprintable() for word in words)


@pytest.mark.parametrize(("said", "group"), [("flows/serve.py:3", "flows/serve.py:3"), ("db", "flows/serve.py: db")])
def test_a_script_uses_up_no_limit_of_others(etc: ConfigDir, said: str, group: str) -> None:
    (one,) = entered(etc, recorded(entry("a", run={"limit": 3, "limit_group": said}))).deployments
    assert (one.run.limit, one.run.limit_group) == (3, group)


def test_a_script_that_fails_keeps_its_last_good_deployments(etc: ConfigDir) -> None:
    good = entered(etc, recorded(entry("a"), entry("b")))
    failure = RecordingFailure(said=Said("flows/serve.py: KeyError: 'REGION'", 4))
    config = entered(etc, failure, good)
    assert names(config) == ["a", "b"]
    assert all("KeyError" in str(one.problem) for one in config.deployments)
    assert etc.words(config.problems) == ["flows/serve.py:4:1: flows/serve.py: KeyError: 'REGION'"]
    again = entered(etc, recorded(entry("a")), config)
    assert (names(again), again.problems, again.deployments[0].problem) == (["a"], (), None)


def test_a_broken_entry_keeps_its_own_last_good_version(etc: ConfigDir) -> None:
    good = entered(etc, recorded(entry("a", tags=["x"]), entry("b")))
    config = entered(etc, recorded(entry("a", entrypoint="none.py:f"), entry("b")), good)
    assert sorted(names(config)) == ["a", "b"]
    assert next(one for one in config.deployments if one.name == "a").tags == ("x",)


def test_a_script_that_was_not_read_yet_keeps_what_was_in_force(etc: ConfigDir) -> None:
    good = entered(etc, recorded(entry("a")))
    stored = Decoder().decode(Config, to_json(good))  # as the journal has it at the next start
    config = etc.load(last_good=stored)
    assert names(config) == ["a"]
    waiting = entered(etc, None, stored)
    assert (names(waiting), waiting.problems, waiting.deployments[0].problem) == (["a"], (), None)


def test_a_broken_drop_in_keeps_its_scripts_and_a_removed_one_does_not(etc: ConfigDir) -> None:
    good = entered(etc, recorded(entry("a")))
    etc.write("conf.d/10.yaml", "scripts: [{path: flows/serve.py, oops: 1}]\n")
    kept = etc.load(last_good=good)
    assert ([one.path for one in kept.scripts], names(kept)) == (["flows/serve.py"], ["a"])
    etc.write("conf.d/10.yaml", "x-empty: 1\n")
    gone = etc.load(last_good=good)
    assert (gone.scripts, gone.deployments) == ((), ())


def test_of_two_declarations_the_one_in_force_stays(etc: ConfigDir) -> None:
    etc.write(
        "conf.d/20.yaml", "deployments: [{name: a, entrypoint: 'flows/etl.py:nightly', run: {environment: {A: '1'}}}]\n"
    )
    config = entered(etc, recorded(entry("a"), entry("b")))
    assert names(config) == ["a", "b"]
    assert config.deployments[0].place.file.endswith("20.yaml")
    (problem,) = etc.words(config.problems)
    assert problem.startswith("flows/serve.py:10:1: deployment 'a' of flows/etl.py:nightly is already defined at")


def test_without_scripts_nothing_is_looked_at(etc: ConfigDir) -> None:
    etc.write("conf.d/10.yaml", "x-empty: 1\n")
    config = etc.load()
    assert enter_scripts(config, (), {}, directory="/nowhere", defaults=replace(DEFAULTS)) is config
