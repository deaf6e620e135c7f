"""`source:` and `pull:` of a deployment: what they say, and what is wrong with them, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runnerd.config import describe_config
from runnerd.core.settings import Deployment, key_of
from runnerd.core.source import Source
from tests.kits.config import ConfigDir

ONE = "deployments:\n- name: a\n  entrypoint: flows/new.py:f\n  {}\n"
GIT = "source: {{git: {{url: 'https://git.example/etl.git'{}}}}}"


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def one(etc: ConfigDir, line: str) -> Deployment:
    return etc.one(ONE.format(line))


def problems(etc: ConfigDir, line: str) -> list[str]:
    etc.write("conf.d/a.yaml", ONE.format(line))
    return etc.problems()


def test_a_git_repository(etc: ConfigDir) -> None:
    line = GIT.format(", branch: main, include_submodules: true, directories: [flows, lib/x], credentials_file: token")
    found = one(etc, line)
    assert found.source == Source(
        kind="git",
        url="https://git.example/etl.git",
        branch="main",
        include_submodules=True,
        directories=("flows", "lib/x"),
        credentials_file=f"{etc.etc}/token",
    )
    assert found.awaits_tree
    assert found.source.pull_interval_s == 60.0, "as Prefect's runner"


def test_intervals_and_bounds(etc: ConfigDir) -> None:
    line = "source: {git: {url: 'git@git.example:etl.git', tag: v1}, pull_interval: 5m, time_limit: 10, size_max: 1G}"
    source = one(etc, line).source
    assert source is not None
    assert (source.pull_interval_s, source.time_limit_s, source.size_max_bytes) == (300.0, 10.0, 2**30)


def test_a_directory_is_where_the_flow_runs(etc: ConfigDir) -> None:
    (etc.etc / "code" / "flows").mkdir(parents=True)
    (etc.etc / "code" / "flows" / "new.py").touch()
    found = one(etc, "source: {directory: code}")
    assert found.run.working_directory == f"{etc.etc}/code"
    assert not found.awaits_tree
    (problem,) = problems(etc, "source: {directory: nothing}")
    assert "no such directory" in problem


def test_the_working_directory_of_the_host_does_not_matter(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "api: {url: http://127.0.0.1:4200/api}\nrun: {working_directory: /nowhere}\n")
    assert one(etc, "source: {remote: 's3://bucket/flows'}").source == Source(kind="remote", url="s3://bucket/flows")


def test_a_commit_is_no_change_of_the_declaration(etc: ConfigDir) -> None:
    main, dev = one(etc, GIT.format(", branch: main")), one(etc, GIT.format(", branch: dev"))
    assert key_of(main) != key_of(dev)


def test_no_secret_is_shown(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", ONE.format("source: {remote: 's3://bucket/flows?token=hush'}"))
    text = json.dumps(describe_config(etc.load()))
    assert "bucket/flows" in text
    assert "hush" not in text


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c id",
        "file://localhost/srv/etl.git",
        "/srv/etl.git",
        "--upload-pack=x",
        "-x",
        "git://h/x",
        "https://h/a\\nb",
        "git@h:-x",
        "http://-h/x",
        "ssh://-oProxyCommand=x/y",
        "https://ada:pw@h/x",
        "https://ada@h/x",
        "http:///x",
    ],
)
def test_urls_that_are_refused(etc: ConfigDir, url: str) -> None:
    (problem,) = problems(etc, f'source: {{git: {{url: "{url}"}}}}')
    assert problem.startswith("conf.d/a.yaml:4:23: source.git.url")


@pytest.mark.parametrize(
    "ref", ["-x", "--upload-pack=x", "a..b", "a b", "a:b", "a.lock", "/a", "a/", "a^", "@{1}", "a\\u0007"]
)
def test_names_of_branches_that_are_refused(etc: ConfigDir, ref: str) -> None:
    (problem,) = problems(etc, GIT.format(f', branch: "{ref}"'))
    assert "source.git.branch must be the name of a branch" in problem


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("source: {}", "4:11: source: write exactly one of git, remote and directory"),
        ("source: {remote: 's3://b', directory: /x}", "4:11: source: write exactly one of git, remote and directory"),
        (GIT.format(", brnch: x"), "unknown key 'brnch' in source.git; did you mean 'branch'?"),
        (GIT.format(", branch: a, tag: b"), "source.git: tag excludes branch; remove one"),
        (GIT.format(", commit: abc"), "source.git.commit must be a whole commit id of 40 hexadecimal digits"),
        (GIT.format(", directories: [../x]"), "source.git.directories[0] must be a directory in the repository"),
        (GIT.format(", credential: a, credentials_file: b"), "credential excludes credentials_file; remove one"),
        (GIT.format(", credentials_block: x"), "source.git.credentials_block must be type/name of a block"),
        (
            "source: {git: {url: 'ssh://git@h/x', credentials_file: b}}",
            "source.git.credentials_file is for http and https; over ssh the keys of the user in ~/.ssh are used",
        ),
        ("source: {git: {url: 'https://h/x'}, pull_interval: 1ms}", "source.pull_interval must be at least 1s"),
        ("source: {git: {url: 'https://h/x'}, size_max: infinity}", "source.size_max"),
        ("source: {git: {url: 'https://h/x'}, size_max: 1}", "source.size_max must be at least 1024"),
        ("source: {directory: /, pull_interval: 1m}", "source.pull_interval: a directory is not pulled; remove it"),
        ("source: {remote: 'flows'}", "source.remote must be an fsspec URL such as s3://bucket/flows"),
        (
            GIT.format("") + "\n  run: {working_directory: /srv}",
            "run.working_directory: the flow runs in the tree of its source; remove one of the two",
        ),
        (GIT.format("") + "\n  work_pool: {name: p}", "source: cannot be with a work pool"),
        (GIT.format("") + "\n  pull: [{a.b: {c: d}}]", "source: cannot be with pull steps; remove one"),
    ],
)
def test_what_is_wrong_with_a_source(etc: ConfigDir, line: str, words: str) -> None:
    found = problems(etc, line)
    assert len(found) == 1, found
    assert words in found[0]


@pytest.mark.parametrize("path", ["/srv/x.py", "../x.py", "a/../../x.py"])
def test_an_entrypoint_outside_the_tree(etc: ConfigDir, path: str) -> None:
    text = ONE.format(GIT.format("")).replace("flows/new.py", path)
    etc.write("conf.d/a.yaml", text)
    (problem,) = etc.problems()
    assert "is not in the tree of the source; write a path relative to that" in problem


# --- pull steps ---------------------------------------------------------------------------------------------------

REPOSITORY = "id: c, repository: 'https://h/x', access_token: '{{ prefect.blocks.secret.t }}'"
SHELL = "prefect.deployments.steps.run_shell_script: {script: ls, directory: '{{ c.directory }}'}"
CLONE = f"pull: [{{prefect.deployments.steps.git_clone: {{{REPOSITORY}}}}}, {{{SHELL}}}]"


def test_steps_are_left_to_prefect(etc: ConfigDir) -> None:
    found = one(etc, CLONE)
    assert found.runs_pull_steps and found.scratch
    assert found.pull_steps == (
        {
            "prefect.deployments.steps.git_clone": {
                "id": "c", "repository": "https://h/x", "access_token": "{{ prefect.blocks.secret.t }}",
            }
        },
        {"prefect.deployments.steps.run_shell_script": {"script": "ls", "directory": "{{ c.directory }}"}},
    )  # fmt: skip
    here = one(etc, CLONE + "\n  run: {working_directory: /}")
    assert (here.scratch, here.run.working_directory) == (False, "/")


def test_steps_of_the_file_are_for_every_deployment_without_own_ones(etc: ConfigDir) -> None:
    text = (
        CLONE
        + "\n"
        + ONE.format("")
        + "- {name: b, entrypoint: 'flows/etl.py:nightly', pull: [{"
        + "prefect.deployments.steps.set_working_directory: {directory: "
        + str(etc.etc)
        + "}}]}\n"
    )
    etc.write("conf.d/a.yaml", text)
    first, second = etc.load().deployments
    assert first.pull_steps is not None and first.scratch
    assert second.pull_steps is None and second.run.working_directory == str(etc.etc)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "pull: [{git_clone: {}}]",
            "pull[0].git_clone is not the name of a step, such as prefect.deployments.steps.git_clone",
        ),
        ("pull: [{a.b: x}]", "pull[0].a.b must be a map of the step's arguments, not 'x'"),
        ("pull: [{a.b: {}, c.d: {}}]", "pull[0] has more than one step; write each as an item of its own"),
    ],
)
def test_what_is_wrong_with_steps(etc: ConfigDir, line: str, words: str) -> None:
    found = problems(etc, line)
    assert len(found) == 1, found
    assert words in found[0]


def test_outputs_of_steps_that_are_not_run(etc: ConfigDir) -> None:
    etc.write(
        "conf.d/a.yaml", "build: [{x.build: {id: image}}]\n" + ONE.format("pull: [{a.b: {c: '{{ image.sha }}'}}]")
    )
    (problem,) = etc.problems()
    assert "it is an output of a build or push step" in problem


def test_in_a_pool_the_directory_of_a_step_is_for_the_inspection(etc: ConfigDir) -> None:
    (etc.etc / "code" / "flows").mkdir(parents=True)
    (etc.etc / "code" / "flows" / "new.py").touch()
    step = f"{{prefect.deployments.steps.set_working_directory: {{directory: {etc.etc}/code}}}}"
    found = one(etc, f"pull: [{{a.clone: {{}}}}, {step}]\n  work_pool: {{name: p}}")
    assert found.run.working_directory == f"{etc.etc}/code"
    assert not found.runs_pull_steps and found.pull_steps is not None and not found.scratch


# --- of commands ------------------------------------------------------------------------------------------------------

COMMAND = "deployments:\n- {{name: a, command: [./bin/backup], {}}}\n"


def test_a_command_runs_in_the_tree_of_its_source(etc: ConfigDir) -> None:
    found = etc.one(COMMAND.format("source: {git: {url: 'https://git.example/etl.git'}}"))
    assert found.awaits_tree and found.command is not None


def test_a_command_has_no_pull_steps(etc: ConfigDir) -> None:
    steps = "pull: [{prefect.deployments.steps.git_clone: {repository: 'https://git.example/etl.git'}}]"
    etc.write("conf.d/a.yaml", COMMAND.format(steps))
    (problem,) = etc.problems()
    assert problem.endswith(
        "pull: Prefect runs these steps, which no command has in its process; name where its files are in source"
    )
