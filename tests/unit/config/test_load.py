"""Files of a configuration directory: which are read, in which order they merge, what stays when one breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config import check
from runnerd.config.files import MAX_BYTES
from runnerd.core.settings import FOREVER_S, Config, Settings
from tests.kits.checkout import HIDDEN, hidden_from_others
from tests.kits.config import DEFAULTS, MAIN, ConfigDir

A = "deployments:\n  - {name: a, entrypoint: 'flows/etl.py:nightly', description: first}\n"
B = "deployments:\n  - {name: b, entrypoint: 'flows/etl.py:nightly'}\n"


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def names(config: Config) -> list[str]:
    return [deployment.name for deployment in config.deployments]


# --- which files ----------------------------------------------------------------------------------------------


def test_drop_ins_are_read_in_name_order_and_leftovers_are_not(etc: ConfigDir) -> None:
    etc.write("conf.d/20-b.yaml", B)
    etc.write("conf.d/10-a.yaml", A)
    for leftover in (".x.yaml", "x.yaml~", "x.yaml.dpkg-old", "x.yaml.dpkg-dist", "#x.yaml#", "README", "x.yaml.bak"):
        etc.write(f"conf.d/{leftover}", "nonsense: [")
    config = etc.load()
    assert names(config) == ["a", "b"]
    assert config.problems == ()
    assert config.files == tuple(
        str(etc.etc / name) for name in ("runnerd.yaml", "conf.d/10-a.yaml", "conf.d/20-b.yaml")
    )


def test_deployments_may_stand_in_runnerd_yaml(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + A.replace("first", "of the host"))
    assert [(d.name, d.description) for d in etc.load().deployments] == [("a", "of the host")]


def test_a_directory_without_files_is_all_defaults(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc", main=None)
    (etc.etc / "conf.d").rmdir()
    config = etc.load(defaults=replace(DEFAULTS, api_url="http://10.0.0.1:4200/api/"))
    assert config.settings == Settings(name="host-1", api=replace(config.settings.api, url="http://10.0.0.1:4200/api"))
    assert (config.settings.api.poll_interval_s, config.files, config.problems) == (10.0, (), ())


def test_without_any_api_url_there_is_no_configuration(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc", main=None)
    assert etc.fatal() == [
        (
            "runnerd.yaml:1:1: nothing says where Prefect's API is; write api: {url: http://HOST:4200/api} into it,"
            " or api: {url: embedded} for a private server, or set PREFECT_API_URL"
        )
    ]


def test_a_wrong_prefect_api_url_is_told(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc", main="# nothing\n")
    assert etc.fatal(defaults=replace(DEFAULTS, api_url="http://h:4200")) == [
        "the environment's PREFECT_API_URL: 'http://h:4200' is not Prefect's API; it ends in /api: http://h:4200/api"
    ]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://h/api/", "http://h/api"),
        ("https://h.example/prefect/api", "https://h.example/prefect/api"),
        ("http://[::1]:4200/api", "http://[::1]:4200/api"),
        ("embedded", "embedded"),
        (
            "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-1/",
            "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-1",
        ),
    ],
)
def test_api_urls(etc: ConfigDir, url: str, kept: str) -> None:
    etc.write("runnerd.yaml", f"api: {{url: '{url}'}}\n")
    assert etc.load().settings.api.url == kept


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    config, problems = check(str(tmp_path / "none"), defaults=DEFAULTS)
    assert config is None
    assert [str(p) for p in problems] == [
        (
            f"cannot read the configuration directory {tmp_path / 'none'}: No such file or directory;"
            " mend it or name another"
        )
    ]


# --- files that cannot be read ---------------------------------------------------------------------------------


def test_what_is_no_readable_file_is_one_problem_each(etc: ConfigDir) -> None:
    etc.write("conf.d/z.yaml", A)
    (etc.etc / "conf.d/a.yaml").mkdir()
    os.mkfifo(etc.etc / "conf.d/b.yaml")
    (etc.etc / "conf.d/c.yaml").symlink_to("nowhere")
    etc.write("conf.d/d.yaml", b"a: 1\nb: \xff\n")
    etc.write("conf.d/e.yaml", b"\xff\xfea\0:\0")
    etc.write("conf.d/f.yaml", b"#" * 5_000_000)
    etc.write("conf.d/g.yml", A)
    etc.write("conf.d/h.yaml", b"\xef\xbb\xbf" + B.encode())
    config = etc.load()
    assert names(config) == ["b", "a"]
    assert etc.words(config.problems) == [
        "conf.d/g.yml:1:1: is ignored; rename it to g.yaml",
        "conf.d/a.yaml:1:1: is a directory; a configuration file is a regular file",
        "conf.d/b.yaml:1:1: is not a regular file; a configuration file is a regular file",
        "conf.d/c.yaml:1:1: is a link to nowhere, which does not exist",
        "conf.d/d.yaml:2:4: is not UTF-8 (byte 0xff); save it as UTF-8",
        "conf.d/e.yaml:1:1: is not UTF-8 (byte 0xff); save it as UTF-8",
        "conf.d/f.yaml:1:1: has 5000000 bytes, more than the limit of 2M; split it",
    ]


def test_a_file_of_just_the_limit_is_read(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A + "#" * (MAX_BYTES - len(A)))
    assert names(etc.load()) == ["a"]
    etc.write("conf.d/a.yaml", A + "#" * (MAX_BYTES - len(A) + 1))
    assert etc.problems() == ["conf.d/a.yaml:1:1: has 2097153 bytes, more than the limit of 2M; split it"]


@pytest.mark.parametrize("bad", [b"a: \xff", b"api: [", b"- x\n", b"api: {url: 5}\n"])
def test_a_broken_runnerd_yaml_is_fatal(etc: ConfigDir, bad: bytes) -> None:
    etc.write("runnerd.yaml", bad)
    (line,) = etc.fatal()
    assert line.startswith("runnerd.yaml:")


UNREADABLE = """
import os, sys
from runnerd.config import HostDefaults, check
defaults = HostDefaults(hostname="h", python="python3", flow_user="root")
check(sys.argv[1], defaults=defaults)  # what it imports may be where only root may look
os.setgroups([]); os.setgid(65534); os.setuid(65534)
config, problems = check(sys.argv[1], defaults=defaults)
print(*problems, sep="\\n")
print(*[d.name for d in config.deployments] if config else [])
"""


@pytest.fixture
def open_etc() -> Iterator[ConfigDir]:
    """A directory that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield ConfigDir(Path(folder) / "etc")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.skipif(hidden_from_others(), reason=HIDDEN)
def test_what_may_not_be_read_is_told(open_etc: ConfigDir) -> None:
    """Another process: the permissions of root could not show it."""
    etc = open_etc
    etc.write("conf.d/a.yaml", A).chmod(0)
    etc.write("conf.d/b.yaml", B)
    hidden = etc.etc / "hidden"
    hidden.mkdir(mode=0o700)
    for number, run in enumerate(["", "run: {user: root}", "run: {user: nobody}"]):
        etc.write(
            f"conf.d/c{number}.yaml",
            f"deployments: [{{name: c{number}, entrypoint: '{hidden}/x.py:f', {run}}}]\n".replace(", }", "}"),
        )
    etc.write(
        "conf.d/d.yaml", f"deployments: [{{name: d, entrypoint: 'm:f', run: {{environment_file: {hidden}/env}}}}]\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", UNREADABLE, str(etc.etc)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert answer.stderr == ""
    assert answer.stdout.replace(f"{etc.etc}/", "").splitlines() == [
        "conf.d/a.yaml:1:1: cannot be read: Permission denied",
        "conf.d/c2.yaml:1:38: entrypoint hidden/x.py: cannot be seen; check the modes of the directories above it",
        (
            "conf.d/d.yaml:1:68: run.environment_file hidden/env: cannot be seen;"
            " check the modes of the directories above it"
        ),
        "b c0 c1",
    ]


# --- merging --------------------------------------------------------------------------------------------------


def test_later_files_win_key_by_key(etc: ConfigDir) -> None:
    etc.write(
        "runnerd.yaml",
        """\
        name: build-07
        api: {url: http://h/api, poll_interval: 5s, headers: {X-A: "1", X-B: "2"}}
        limits: {runs: 3, tags: {gpu: 1, big: 2}}
        run: {nice: 5, limit: 2, environment: {A: "1", B: "2"}, limit_nofile: 10}
        """,
    )
    etc.write(
        "conf.d/10-x.yaml", "limits: {runs: 4, tags: {gpu: 2, big: null}}\nrun: {nice: null, environment: {B: 3}}\n"
    )
    etc.write("conf.d/20-y.yaml", "limits: {runs: 5}\napi: {poll_interval: null, headers: {X-B: null}}\n" + A)
    config = etc.load()
    settings = config.settings
    assert config.problems == ()
    assert settings.name == "build-07"
    assert (settings.api.url, settings.api.poll_interval_s, settings.api.headers) == (
        "http://h/api",
        10.0,
        {"X-A": "1"},
    )
    assert (settings.limits.runs, settings.limits.tags) == (5, {"gpu": 2})
    run = config.deployments[0].run
    assert (run.nice, run.limit, run.environment, run.rlimits) == (None, 2, {"A": "1", "B": "3"}, {"nofile": (10, 10)})


def test_every_setting_is_read(etc: ConfigDir) -> None:
    etc.write(
        "runnerd.yaml",
        """\
        name: build-07
        api:
          url: http://h:4200/api/
          auth_string_file: auth
          poll_interval: 500ms
          prefetch: 0
          request_timeout: 1min
        limits: {runs: 7, start_rate: 30/m}
        stop: {drain_timeout: infinity, then: reschedule}
        late: {after: 1h, policy: latest}
        journal: {keep: 1w, max_runs: 5}
        output: {journal: never}
        http: {listen: "[::1]:9464"}
        pools: []
        """,
    )
    settings = etc.load().settings
    assert settings.api.auth_string_file == str(etc.etc / "auth")
    assert (settings.api.poll_interval_s, settings.api.prefetch_s, settings.api.request_timeout_s) == (0.5, 0, 60)
    assert (settings.limits.runs, settings.limits.start_rate_per_s) == (7, 0.5)
    assert (settings.stop.drain_timeout_s, settings.stop.then) == (FOREVER_S, "reschedule")
    assert (settings.late.after_s, settings.late.policy) == (3600, "latest")
    assert (settings.journal.keep_s, settings.journal.max_runs) == (604800, 5)
    assert settings.output.journal == "never"
    assert settings.http_listen == ("::1", 9464)


def test_name_counts_in_runnerd_yaml_only(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "name: a/project\nprefect-version: 3.0\n" + A)
    config = etc.load()
    assert (config.settings.name, config.problems) == ("host-1", ())
    etc.write("runnerd.yaml", MAIN + "name: a/b\n")
    assert etc.fatal() == ["runnerd.yaml:2:7: name must not have '/' or '%' in it, as in 'a/b'"]


def test_null_in_a_drop_in_cannot_take_away_the_url(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "api: {url: null, poll_interval: 5s}\n")
    api = etc.load().settings.api
    assert (api.url, api.poll_interval_s) == ("http://127.0.0.1:4200/api", 5)


def test_two_ways_to_log_in_cost_the_drop_in_that_brings_the_second(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "api: {url: embedded, key_file: /k}\n")
    etc.write("conf.d/a.yaml", "api: {auth_string_file: /s, poll_interval: 1s}\n")
    config = etc.load()
    assert etc.words(config.problems) == [
        "conf.d/a.yaml:1:25: api.auth_string_file and api.key_file (runnerd.yaml:1:32) cannot both be; remove one"
    ]
    assert (config.settings.api.key_file, config.settings.api.auth_string_file) == ("/k", None)


def test_the_other_way_to_log_in_can_be_taken_away(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "api: {url: embedded, key_file: /k}\n")
    etc.write("conf.d/a.yaml", "api: {auth_string_file: /s, key_file: null}\n")
    api = etc.load().settings.api
    assert (api.key_file, api.auth_string_file) == (None, "/s")


# --- doubles --------------------------------------------------------------------------------------------------


def test_the_second_of_two_equal_deployments_names_the_first(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", "\n" + A.replace("first", "second"))
    config = etc.load()
    assert [d.description for d in config.deployments] == ["first"]
    assert etc.words(config.problems) == [
        (
            "conf.d/b.yaml:3:5: deployment 'a' of flows/etl.py:nightly stands here and at conf.d/a.yaml:2:5;"
            " rename or remove one"
        )
    ]


def test_equal_names_of_one_stated_flow_are_doubles_and_of_others_not(etc: ConfigDir) -> None:
    item = "  - {{name: a, entrypoint: 'm:f{0}', flow_name: {1}}}\n"
    etc.write("conf.d/a.yaml", "deployments:\n" + item.format(1, "x") + item.format(2, "x") + item.format(3, "y"))
    config = etc.load()
    assert [d.entrypoint for d in config.deployments] == ["m:f1", "m:f3"]
    assert etc.words(config.problems) == [
        "conf.d/a.yaml:3:5: deployment 'a' of x stands here and at conf.d/a.yaml:2:5; rename or remove one"
    ]


def test_one_entrypoint_in_two_directories_is_two_flows(etc: ConfigDir, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    item = "deployments: [{name: a, entrypoint: 'm:f', run: {working_directory: %s}}]\n"
    etc.write("conf.d/a.yaml", item % tmp_path)
    etc.write("conf.d/b.yaml", item % (tmp_path / "x"))
    assert names(etc.load()) == ["a", "a"]


# --- the last good version ------------------------------------------------------------------------------------


def test_a_broken_deployment_keeps_its_last_good_version(etc: ConfigDir) -> None:
    text = A + "  - {name: b, entrypoint: 'flows/etl.py:nightly'}\n"
    etc.write("conf.d/a.yaml", text)
    good = etc.load()
    etc.write("conf.d/a.yaml", text.replace("description: first", "descripton: second"))
    now = etc.load(last_good=good)
    problem = "conf.d/a.yaml:2:51: unknown key 'descripton' in a deployment; did you mean 'description'?"
    assert etc.words(now.problems) == [problem]
    assert [(d.name, d.description) for d in now.deployments] == [("b", None), ("a", "first")]
    assert [d.problem for d in now.deployments] == [None, f"{etc.etc}/{problem}"]
    assert now.invalid == ()
    again = etc.load(last_good=now)
    assert again == now
    etc.write("conf.d/a.yaml", text)
    assert etc.load(last_good=again) == good


@pytest.mark.parametrize(
    "bad", ["deployments: [", "", "deployments: 5\n", "deployments: [5]\n", "deployments: [{nam: a}]\n"]
)
def test_a_file_that_tells_no_names_keeps_all_it_last_said(etc: ConfigDir, bad: str) -> None:
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", B)
    good = etc.load()
    etc.write("conf.d/a.yaml", bad)
    now = etc.load(last_good=good)
    assert sorted(names(now)) == ["a", "b"]
    assert [d.problem for d in now.deployments if d.name == "a"] == [str(now.problems[0])]


def test_a_file_that_is_gone_takes_its_deployments_along(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", B)
    good = etc.load()
    (etc.etc / "conf.d/a.yaml").unlink()
    assert names(etc.load(last_good=good)) == ["b"]


def test_a_drop_in_directory_that_cannot_be_listed_keeps_everything(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A + "limits: {runs: 3}\n")
    good = etc.load()
    (etc.etc / "conf.d").rename(etc.etc / "moved")
    etc.write("conf.d", "not a directory")
    now = etc.load(last_good=good)
    assert names(now) == ["a"]
    assert etc.words(now.problems) == [
        "conf.d:1:1: cannot list the drop-ins: Not a directory; what they last said stays in force"
    ]
    assert now.deployments[0].problem == f"{etc.etc}/conf.d cannot be listed"
    assert now.settings.limits.runs == 3


def test_what_moved_to_another_file_is_not_kept_twice(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    good = etc.load()
    etc.write("conf.d/a.yaml", "deployments: [")
    etc.write("conf.d/b.yaml", A.replace("first", "moved"))
    assert [d.description for d in etc.load(last_good=good).deployments] == ["moved"]


def test_without_a_last_good_version_it_is_invalid(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A.replace("description", "descripton"))
    config = etc.load()
    assert (config.deployments, [(bad.name, bad.place.line) for bad in config.invalid]) == ((), [("a", 2)])


def test_flows_do_not_fall_back_to_the_spawners_user_when_a_drop_in_breaks(etc: ConfigDir) -> None:
    etc.write("conf.d/00-run.yaml", "run: {user: nobody}\nlimits: {runs: 3}\n")
    etc.write("conf.d/a.yaml", A)
    good = etc.load()
    for bad in ("run: {user: [\n", "run: {user: 5}\nlimits: {runs: 3}\n"):
        etc.write("conf.d/00-run.yaml", bad)
        now = etc.load(last_good=good)
        assert [d.run.user for d in now.deployments] == ["nobody"]
        assert now.settings.limits.runs == 3
        assert now.said == good.said
    etc.write("conf.d/00-run.yaml", "run: {nice: 1}\n")
    assert [d.run.user for d in etc.load(last_good=now).deployments] == [None]


def test_a_broken_deployment_does_not_hold_back_its_files_settings(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "limits: {runs: 3}\n" + A)
    good = etc.load()
    etc.write("conf.d/a.yaml", "limits: {runs: 4}\n" + A.replace("name: a", "name: a/"))
    assert etc.load(last_good=good).settings.limits.runs == 4


# --- check ----------------------------------------------------------------------------------------------------


def test_check_reads_a_directory_as_load_does(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    config, problems = check(str(etc.etc), defaults=DEFAULTS)
    assert (config, problems) == (etc.load(), [])


def test_check_reads_one_drop_in_with_the_hosts_defaults(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "run: {nice: 7}\nlimits: {runs: wrong}\n")
    etc.write("conf.d/b.yaml", "broken: [")
    path = etc.write("conf.d/a.yaml", A)
    config, problems = check(str(path), defaults=DEFAULTS)
    assert problems == []
    assert config is not None
    assert [(d.name, d.run.nice) for d in config.deployments] == [("a", 7)]
    assert config.files == (str(path),)


def test_check_reads_a_prefect_yaml_where_it_stands(etc: ConfigDir) -> None:
    path = etc.write("prefect.yaml", A.replace("etl.py", "etk.py"))
    _, problems = check(str(path), defaults=DEFAULTS)
    assert etc.words(problems) == [f"prefect.yaml:2:27: entrypoint flows/etk.py: no such file under {etc.etc}"]


def test_check_reads_runnerd_yaml_by_itself(etc: ConfigDir) -> None:
    etc.write("conf.d/b.yaml", "broken: [")
    assert check(str(etc.etc / "runnerd.yaml"), defaults=DEFAULTS)[1] == []
    etc.write("runnerd.yaml", "x: 1\n")
    config, problems = check(str(etc.etc / "runnerd.yaml"), defaults=DEFAULTS)
    assert config is None
    assert "runnerd.yaml:1:1: unknown key 'x' in this file" in etc.words(problems)


def test_check_tells_a_mistake_of_the_hosts_run_section_once(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + "run: {user: nobody-there}\n")
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", B)
    words = ["runnerd.yaml:2:13: run.user nobody-there: no such user on this host"]
    assert etc.problems() == words * 2
    assert etc.words(check(str(etc.etc), defaults=DEFAULTS)[1]) == words


def test_a_flow_without_a_user_runs_as_the_host_says(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", B.replace("'}", "', run: {user: root}}"))
    told = replace(DEFAULTS, flow_user="nobody")
    assert {one.name: one.run.user for one in etc.load(defaults=told).deployments} == {"a": "nobody", "b": "root"}
    assert {one.name: one.run.user for one in etc.load().deployments} == {"a": None, "b": "root"}
