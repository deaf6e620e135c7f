"""load.py: which files of a directory are read, in which order they merge, and what `check` reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config import check
from runnerd.core.settings import FOREVER_S, Settings
from tests.kits.config import DEFAULTS, MAIN, A, B, ConfigDir, names


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


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
            "runnerd.yaml:1:1: the URL of Prefect's API is missing; write api: {url: http://HOST:4200/api} into it,"
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
    assert [str(p) for p in problems] == [f"cannot check {tmp_path / 'none'}: there is no such file or directory"]


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
        output: {journal: never, max_total: 1G}
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
    assert (settings.output.journal, settings.output.max_total_bytes) == ("never", 2**30)
    assert settings.http.listen == ("::1", 9464)


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
        "conf.d/a.yaml:1:25: cannot have both api.auth_string_file and api.key_file (runnerd.yaml:1:32); remove one"
    ]
    assert (config.settings.api.key_file, config.settings.api.auth_string_file) == ("/k", None)


def test_two_ways_to_log_in_do_not_hide_the_url_beside_them(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "api: {url: 'http://h/api', key_file: /k, auth_string_file: /s}\n")
    assert etc.fatal() == [
        "runnerd.yaml:1:60: cannot have both api.auth_string_file and api.key_file (runnerd.yaml:1:38); remove one"
    ]
    etc.write("runnerd.yaml", "api: {key_file: /k, auth_string_file: /s}\n")
    assert [one.split(";")[0] for one in etc.fatal()] == [
        "runnerd.yaml:1:1: the URL of Prefect's API is missing",
        "runnerd.yaml:1:39: cannot have both api.auth_string_file and api.key_file (runnerd.yaml:1:17)",
    ], "a URL that is nowhere is reported beside them"


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
            "conf.d/b.yaml:3:5: deployment 'a' of flows/etl.py:nightly is already defined at conf.d/a.yaml:2:5;"
            " rename or remove one"
        )
    ]


def test_equal_names_of_one_stated_flow_are_doubles_and_of_others_not(etc: ConfigDir) -> None:
    item = "  - {{name: a, entrypoint: 'm:f{0}', flow_name: {1}}}\n"
    etc.write("conf.d/a.yaml", "deployments:\n" + item.format(1, "x") + item.format(2, "x") + item.format(3, "y"))
    config = etc.load()
    assert [d.entrypoint for d in config.deployments] == ["m:f1", "m:f3"]
    assert etc.words(config.problems) == [
        "conf.d/a.yaml:3:5: deployment 'a' of x is already defined at conf.d/a.yaml:2:5; rename or remove one"
    ]


def test_what_was_in_force_stays_before_a_double_in_an_earlier_file(etc: ConfigDir) -> None:
    etc.write("conf.d/b.yaml", A)
    before = etc.load()
    etc.write("conf.d/a.yaml", A.replace("first", "second"))
    config = etc.load(last_good=before)
    assert [d.description for d in config.deployments] == ["first"]
    assert etc.words(config.problems) == [
        (
            "conf.d/a.yaml:2:5: deployment 'a' of flows/etl.py:nightly is already defined at conf.d/b.yaml:2:5;"
            " rename or remove one"
        )
    ]


def test_an_environment_may_name_another_flow(etc: ConfigDir) -> None:
    item = "  - {{name: a, entrypoint: 'm:f', run: {{environment: {{STAGE: {}}}}}}}\n"
    etc.write("conf.d/a.yaml", "deployments:\n" + item.format("test") + item.format("live") + item.format("live"))
    config = etc.load()
    assert [d.run.environment["STAGE"] for d in config.deployments] == ["test", "live"]
    assert len(config.problems) == 1


def test_one_entrypoint_in_two_directories_is_two_flows(etc: ConfigDir, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    item = "deployments: [{name: a, entrypoint: 'm:f', run: {working_directory: %s}}]\n"
    etc.write("conf.d/a.yaml", item % tmp_path)
    etc.write("conf.d/b.yaml", item % (tmp_path / "x"))
    assert names(etc.load()) == ["a", "a"]


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
