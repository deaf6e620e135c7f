"""Code from git, and commands, on a packaged host: pulled and run as the flows' user, in the sandbox of the units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits import git_server
from tests.kits.machines.host_on_machine import MAIN, MachineHost

ROOT = "/srv/git"
# The address is the machine's own: its network is not the tests'.
SERVE = """
import pathlib, sys
sys.path.insert(0, "/opt/git-kit")
import git_server
server = git_server.GitServer(pathlib.Path("/srv/git"))
pathlib.Path("/srv/git/url").write_text(server.url())
"""
COMMIT = """
import pathlib, sys
sys.path.insert(0, "/opt/git-kit")
import git_server
root = pathlib.Path("/srv/git")
if not (root / "etl.git").exists():
    git_server.Repository(root)
repository = git_server.Repository.__new__(git_server.Repository)
repository.path, repository.work = root / "etl.git", root / "etl.git-work"
print(repository.commit({"etl.py": sys.argv[1]}))
"""
FLOW = """
import getpass, pathlib
from prefect import flow

@flow(log_prints=True)
def etl():
    print("{word} of", getpass.getuser(), "in", pathlib.Path(__file__).parent)
"""
DROP_IN = """
deployments:
  - name: pulled
    entrypoint: etl.py:etl
    source: {{git: {{url: "{url}", branch: main}}}}
  - name: who
    command: [/usr/bin/id, -un]
"""


@pytest.fixture
def sourced(host: MachineHost) -> Iterator[MachineHost]:
    """The host, with a git server on it and a deployment whose code is there."""
    host.sh(f"mkdir -p {ROOT} /opt/git-kit")
    host.machine.write("/opt/git-kit/git_server.py", Path(git_server.__file__).read_text())
    host.machine.write("/opt/git-kit/serve.py", SERVE)
    host.machine.write("/opt/git-kit/commit.py", COMMIT)
    commit(host, "first")
    host.run("systemd-run", "--unit=git-server", "python3", "/opt/git-kit/serve.py")
    host.until(lambda: host.sh(f"cat {ROOT}/url 2>/dev/null || true"), "the git server listens")
    host.configure(MAIN, pulled=DROP_IN.format(url=host.sh(f"cat {ROOT}/url").strip()))
    yield host
    host.run("systemctl", "stop", "git-server", check=False)
    host.configure()


def commit(host: MachineHost, word: str) -> str:
    return host.run("python3", "/opt/git-kit/commit.py", FLOW.format(word=word)).out.strip()


def commit_in_force(host: MachineHost) -> str:
    (one,) = [one for one in host.status()["deployments"] if one["name"] == "pulled"]
    found: str = one["source"]["commit"]
    return found


def test_code_is_pulled_and_commands_are_run_as_the_flows_user(sourced: MachineHost) -> None:
    host = sourced
    first = commit_in_force(host)
    run_id = host.create("pulled")
    host.ends(run_id, "Completed")
    said = host.runnerctl("logs", run_id).out
    assert "first of runnerd-flow in /var/lib/runnerd-sources/" in said, said
    second = commit(host, "second")
    host.runnerctl("pull", "pulled")
    host.until(lambda: commit_in_force(host) == second, "the new commit is in force")
    assert second != first
    run_id = host.create("pulled")
    host.ends(run_id, "Completed")
    assert "second of runnerd-flow in " in host.runnerctl("logs", run_id).out
    assert json.loads(host.runnerctl("status", run_id, "--json").out)["source"]["commit"] == second
    folder, *below = host.sh("stat -c '%a %U' /var/lib/runnerd-sources /var/lib/runnerd-sources/*").splitlines()
    assert (folder, set(below)) == ("1733 root", {"700 runnerd-flow"})
    run_id = host.create("who")
    host.ends(run_id, "Completed")
    assert host.runnerctl("logs", run_id).out.split() == ["runnerd-flow"]
