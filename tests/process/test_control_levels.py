"""The lists in `control`, with clients that are other users of this machine."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import runnerd.cli.verbs.drain  # noqa: F401 - which another user may not import from here
from runnerd.cli.__main__ import main
from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError
from runnerd.core.settings import ControlSettings
from tests.kits.fakes.serving import Serving, serving
from tests.kits.spawner import needs_root

pytestmark = needs_root
RUN_A = "aaaa1111-0000-4000-8000-000000000001"
LISTS = ControlSettings(admins=("disk",), operators=("games",), readers=("nogroup",))


@pytest.fixture
def served() -> Iterator[Serving]:
    """On a socket that every user can open."""
    home = Path(tempfile.mkdtemp(prefix="runnerd-"))
    home.chmod(0o755)
    try:
        with serving(home, control=lambda: LISTS, mode=0o666) as it:
            yield it
    finally:
        shutil.rmtree(home)


def as_user(user: str, groups: list[str], do: Callable[[], int]) -> tuple[int, str]:
    """The exit status of a process of this user, and what it wrote to standard error."""
    account = pwd.getpwnam(user)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            sys.stderr = os.fdopen(writing, "w")
            os.setgroups([grp.getgrnam(group).gr_gid for group in groups])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            status = do()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@pytest.mark.parametrize(
    ("user", "groups", "permitted"),
    [
        ("root", [], "get cancel execute"),
        ("nobody", ["disk"], "get cancel execute"),
        ("nobody", ["games"], "get cancel"),
        ("games", [], "get cancel"),
        ("nobody", [], "get"),
        ("daemon", [], ""),
    ],
)
def test_who_may_do_what(served: Serving, user: str, groups: list[str], permitted: str) -> None:
    served.call(served.host.runs.put, RUN_A)
    requests: dict[str, Callable[[ControlClient], object]] = {
        "get": lambda client: client.get("/v1/status"),
        "cancel": lambda client: client.post("/v1/cancel", {"all": True}),
        "execute": lambda client: client.post("/v1/execute", {"flow_run_id": RUN_A}),
    }

    def is_refused(request: Callable[[ControlClient], object]) -> int:
        try:
            request(ControlClient(served.socket))
        except ControlError as error:
            return int(error.status == 403)
        return 0

    refused = {name: as_user(user, groups, lambda one=one: is_refused(one))[0] for name, one in requests.items()}  # type: ignore[misc]
    assert refused == {name: int(name not in permitted.split()) for name in requests}


@pytest.mark.parametrize(("group", "permitted"), [("disk", True), ("games", False)])
@pytest.mark.parametrize("path", ["/v1/cancel", f"/v1/runs/{RUN_A}/cancel"])
def test_a_run_that_a_pool_offers_to_every_host_is_no_operators(
    served: Serving, path: str, group: str, permitted: bool
) -> None:
    served.call(served.host.runs.put, RUN_A, phase=None, pool="etl", started_at=None, pid=None)
    body = {"runs": [RUN_A]} if path == "/v1/cancel" else None

    def cancel() -> int:
        try:
            ControlClient(served.socket).post(path, body)
        except ControlError as error:
            print(error, file=sys.stderr)
            return error.status
        return 0

    status, said = as_user("nobody", [group], cancel)
    assert [verb for verb, _ in served.host.asked] == (["cancel"] if permitted else [])
    if permitted:
        assert (status, said) == (0, "")
        return
    assert status == 403 % 256
    assert f"cannot cancel run {RUN_A}, which work pool etl still offers to every host: the user with uid " in said
    served.call(served.host.runs.put, RUN_A, phase="claiming")  # now it is this host's
    assert as_user("nobody", [group], cancel)[0] == 0


def test_runnerctl_names_the_group_in_one_line_and_exits_with_5(served: Serving) -> None:
    status, said = as_user("nobody", [], lambda: main(["--socket", served.socket, "drain"]))
    assert status == 5
    uid = pwd.getpwnam("nobody").pw_uid
    groups = "one of the groups games (control.operators), disk (control.admins)"
    wanted = f"cannot POST /v1/drain: the user with uid {uid} is not in {groups}; ask an administrator to add you to it"
    assert said == f"runnerctl: {wanted}\n"
    assert served.host.asked == []
