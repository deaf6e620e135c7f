"""What the doctor makes of what it sees: each check by itself, well and ill."""

from __future__ import annotations

import os
import pwd
import resource
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd import __version__
from runnerd.core.place import Place, Problem
from runnerd.core.prefect import ApiCondition, ApiHealth, WorkPool
from runnerd.core.settings import ApiSettings, Config, InvalidDeployment, PoolSettings
from runnerd.deployments.registry import Entry
from runnerd.doctor.checks import Check, Room, directory_check, disk_check, document, error, ok, some, warning
from runnerd.doctor.deployments import configuration_check, deployments_check, pools_check
from runnerd.doctor.interpreters import Answer, Interpreter, interpreter_check, interpreters_of, read_answer
from runnerd.doctor.machine import config_check, credentials_check, dbus_check, directory_checks, users_check
from runnerd.doctor.prefect import api_check, clock_check, server_check
from runnerd.doctor.spawner import files_check, limits_check, open_files_of, spawner_check
from runnerd.doctor.subject import Source
from runnerd.pools.table import Served
from runnerd.prefect_api.clock import Skew
from runnerd.prefect_api.dialect import server_info, version_of
from runnerd.processes.protocol import Hello
from runnerd.system.paths import Paths
from runnerd.system.run_program import ProgramResult
from tests.kits.nouns import NOON, URL, Json, a_deployment

ME = pwd.getpwuid(os.geteuid()).pw_name
needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
PLACE = Place("/etc/runnerd/conf.d/10.yaml", 3, 5)


def state_and_words(check: Check, state: str, *words: str) -> None:
    """A check in this state that says this; whoever is told of trouble is told what to do."""
    assert check.state == state
    assert (check.remedy is None) is (state == "ok"), check
    text = f"{check.detail} | {check.remedy}"
    for each in words:
        assert each in text


# --- documents --------------------------------------------------------------------------------------------------


def test_a_document() -> None:
    checks = [ok("a", "well"), warning("b", "so so", "mend")]
    assert document(checks) == {
        "ok": True,
        "checks": [
            {"name": "a", "state": "ok", "detail": "well", "remedy": None},
            {"name": "b", "state": "warning", "detail": "so so", "remedy": "mend"},
        ],
    }
    assert document([*checks, error("c", "ill", "mend")])["ok"] is False


def test_some() -> None:
    assert some(["a"]) == "a"
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


# --- the API ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detail", "remedy"),
    [
        ("401: the API key is not accepted", "put a valid credential into /etc/runnerd/key"),
        ("403: the API key may not POST /flows/", "give this credential the right"),
        ("cannot read the API key file /etc/runnerd/key: Permission denied", "mend that file"),
        ("HTTP 404 from GET /x: is api.url right? It ends in /api", "set api.url to"),
        ("cannot read a flow run as Prefect sent it: x; is api.url right? It ends in /api", "set api.url to"),
        ("HTTP 503 from POST /x: database is locked", "see the log of the Prefect server"),
    ],
)
def test_a_degraded_api(detail: str, remedy: str) -> None:
    health = ApiHealth(condition=ApiCondition.DEGRADED, since=NOON, detail=detail)
    check = api_check(URL, health, ApiSettings(url=URL, key_file="/etc/runnerd/key"))
    state_and_words(check, "error", f"{URL} answers, but {detail}", remedy)


def test_an_api_that_is_well_or_away() -> None:
    settings = ApiSettings(url=URL)
    state_and_words(api_check(URL, ApiHealth(condition=ApiCondition.OK, since=NOON, detail=""), settings), "ok", URL)
    away = ApiHealth(condition=ApiCondition.UNREACHABLE, since=NOON, detail="connection refused")
    state_and_words(api_check(URL, away, settings), "error", "connection refused", f"curl -sS {URL}/health")
    denied = ApiHealth(condition=ApiCondition.DEGRADED, since=NOON, detail="401: a request without credentials is not")
    state_and_words(api_check(URL, denied, settings), "error", "that api.key_file or api.auth_string_file names")


@pytest.mark.parametrize(
    ("version", "state", "words"),
    [
        ("2.20.25", "ok", "Prefect 2.20.25"),
        ("3.8.8", "ok", "Prefect 3.8.8"),
        ("2.20.0", "ok", "Prefect 2.20.0"),
        ("2.19.9", "warning", "older than anything"),
        ("2.14.3", "error", "too old"),
        ("4.0.0", "error", "newer than this runnerd"),
        ("nonsense", "error", "'nonsense' is no version"),
    ],
)
def test_the_server_s_version(version: str, state: str, words: str) -> None:
    state_and_words(server_check(server_info(version)), state, words)


def test_a_server_that_is_not_known_and_the_cloud() -> None:
    state_and_words(server_check("it is away"), "unknown", "it is away")
    assert server_check(replace(server_info("3.0.0"), version="cloud")).detail == "Prefect Cloud"
    assert version_of("3.1.4.dev5+7.gabc") == (3, 1, 4)
    assert version_of("cloud") is None


@pytest.mark.parametrize(
    ("seconds", "doubt_s", "state", "words"),
    [
        (0.4, 0.5, "ok", "within 1s"),
        (2.4, 0.5, "ok", "within 2s"),
        (-2.6, 0.5, "warning", "3s behind the API's"),
        (30.0, 0.5, "warning", "30s ahead of the API's"),
        (-31.0, 0.5, "error", "31s behind the API's"),
        (3600.0, 2.0, "error", "systemd-timesyncd"),
        (10.0, 9.0, "ok", "within 10s"),  # a slow answer says little
    ],
)
def test_the_clock(seconds: float, doubt_s: float, state: str, words: str) -> None:
    state_and_words(clock_check(Skew(seconds=seconds, doubt_s=doubt_s)), state, words)


def test_a_clock_that_nobody_told() -> None:
    assert clock_check(None).state == "unknown"


# --- the spawner ------------------------------------------------------------------------------------------------


def hello(*limits: str | None, version: str = __version__, why: str | None = None) -> Hello:
    names = ("memory_max", "cpu_quota", "tasks_max")
    return Hello(version=version, pid=7, limits=dict(zip(names, limits, strict=False)), why=why)


def test_the_spawner_s_version() -> None:
    state_and_words(spawner_check(hello()), "ok", "connected", "pid 7")
    old = spawner_check(hello(version="0.0.1"))
    state_and_words(old, "warning", f"its version is 0.0.1 and runnerd's {__version__}", "runnerctl drain")
    assert spawner_check(None).state == "unknown"


def test_limits() -> None:
    capped = a_source("capped", cpu_quota_percent=50.0, memory_max_bytes=2**20)
    all_well = limits_check(hello("cgroup", "cgroup", "cgroup"), [capped], managed=True)
    state_and_words(all_well, "ok", "for each run as a whole")
    weak = hello("rlimit", None, "rlimit", why="no cgroup is delegated")
    check = limits_check(weak, [a_source("nightly")], managed=False)
    words = ("memory_max holds for each process by itself", "cpu_quota has no effect", "no cgroup is delegated")
    state_and_words(check, "warning", *words, "Delegate=yes")
    in_vain = limits_check(weak, [capped], managed=True)
    state_and_words(in_vain, "error", "capped asks for cpu_quota, but ", "cgroup.controllers", "or remove these keys")
    both = limits_check(weak, [capped, replace(capped, name="other")], managed=False)
    state_and_words(both, "error", "capped, other ask for cpu_quota, but ")
    assert limits_check(hello(), [capped], managed=True).state == "unknown"
    assert limits_check(None, [], managed=True).state == "unknown"


def test_open_files() -> None:
    state_and_words(files_check({"runnerd": 1024, "runnerd-spawner": 1024}, 100), "ok", "limits.runs 100")
    state_and_words(files_check({"runnerd": resource.RLIM_INFINITY}, 10**6), "ok")
    short = files_check({"runnerd": 65536, "runnerd-spawner": 1024}, 1000)
    state_and_words(
        short, "error", "runnerd-spawner may open 1024 files", "LimitNOFILE=65536 for runnerd-spawner.service"
    )
    assert open_files_of(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert open_files_of(2**22 + 1) is None


# --- the machine ------------------------------------------------------------------------------------------------


async def dbus(ran: ProgramResult, unit: str | None = "runnerd.service") -> Check:
    async def run(*argv: str) -> ProgramResult:
        assert argv[:2] == ("systemctl", "list-jobs")
        return ran

    return await dbus_check(run, unit=unit)


async def test_dbus() -> None:
    state_and_words(await dbus(ProgramResult(0, "", "")), "ok", "list-jobs answers")
    failed = await dbus(ProgramResult(1, "", "Failed to connect to bus: No such file or directory\nmore"))
    state_and_words(
        failed, "error", "(Failed to connect to bus: No such file or directory)", "reads as a restart", "dbus"
    )
    state_and_words(await dbus(ProgramResult(4, "", "")), "error", "(exit status 4)")
    state_and_words(
        await dbus(ProgramResult(None, "", "systemctl did not answer within 5s")), "error", "did not answer"
    )
    state_and_words(
        await dbus(ProgramResult(0, "", ""), unit=None), "error", "in no unit's cgroup", "systemctl start runnerd"
    )


def test_users() -> None:
    state_and_words(users_check({}, {}, None), "ok", "the spawner's user")
    state_and_words(users_check({ME: ["a"]}, {}, ME), "ok", f"flows run as {ME}")
    absent = users_check({"etl-x": ["a", "b"]}, {"grp-x": ["c"]}, "runner-x")
    state_and_words(absent, "error", "no user etl-x (run.user of a, b)", "no group grp-x (run.group of c)", "useradd")
    assert "no user runner-x (RUNNERD_FLOW_USER" in absent.detail


def test_directories(tmp_path: Path) -> None:
    paths = Paths(*(str(tmp_path / name) for name in ("etc", "run", "state", "log")), None)
    Path(paths.state).mkdir()
    Path(paths.runtime).write_text("in the way")
    state, log, runtime = directory_checks(paths, "runnerd")
    state_and_words(state, "ok", paths.state)
    state_and_words(log, "error", f"{paths.log}/runs does not exist", "give it to runnerd")
    state_and_words(runtime, "error", "is no directory")
    state_and_words(directory_check("x", f"{paths.runtime}/y", user="u", write=True), "error", "Not a directory")
    if os.path.isdir("/sys/class"):  # where nobody may write, root or not
        state_and_words(directory_check("x", "/sys/class", user="u", write=False), "ok", "can be read")


@needs_no_root
def test_directories_of_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    state_and_words(
        directory_check("x", str(tmp_path), user=ME, write=True), "error", f"user {ME} may not write", "chown"
    )
    tmp_path.chmod(0o300)
    state_and_words(directory_check("x", str(tmp_path), user=ME, write=False), "error", f"user {ME} may not read")
    tmp_path.chmod(0o700)


def test_configuration_files(tmp_path: Path) -> None:
    state_and_words(config_check(str(tmp_path / "absent"), ME), "error", "does not exist")
    state_and_words(config_check(str(tmp_path), ME), "ok", "can read 0 files in")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "runnerd.yaml").write_text("")
    (tmp_path / "conf.d" / "10-a.yaml").write_text("")
    state_and_words(config_check(str(tmp_path), ME), "ok", "can read 2 files in")
    (tmp_path / "conf.d" / "10-a.yaml").unlink()
    (tmp_path / "conf.d").rmdir()
    (tmp_path / "conf.d").write_text("")
    state_and_words(config_check(str(tmp_path), ME), "error", "conf.d is no directory")


@needs_no_root
def test_a_drop_in_that_the_daemon_may_not_read(tmp_path: Path) -> None:
    drop_in = tmp_path / "conf.d" / "10-a.yaml"
    drop_in.parent.mkdir()
    drop_in.write_text("")
    drop_in.chmod(0)
    state_and_words(config_check(str(tmp_path), ME), "error", f"user {ME} cannot read {drop_in}", "chgrp")


def test_credentials(tmp_path: Path) -> None:
    key = tmp_path / "key"
    state_and_words(
        credentials_check([str(key)], ME), "error", f"user {ME} cannot read {key}: No such file", "namei -l"
    )
    key.write_text("secret")
    key.chmod(0o600)
    state_and_words(credentials_check([str(key)], ME), "ok", str(key))
    key.chmod(0o644)
    state_and_words(credentials_check([str(key)], ME), "warning", "everybody on this host", f"chmod o-rwx {key}")
    assert stat.S_IMODE(key.stat().st_mode) == 0o644  # a look changes nothing


GIB = 2**30


@pytest.mark.parametrize(
    ("room", "state"),
    [
        (Room(50 * GIB, 0.5, 0.5), "ok"),
        (Room(50 * GIB, 0.5, None), "ok"),
        (Room(50 * GIB, 0.09, 0.5), "warning"),
        (Room(GIB - 1, 0.5, 0.5), "warning"),
        (Room(50 * GIB, 0.5, 0.09), "warning"),
        (Room(50 * GIB, 0.019, 0.5), "error"),
        (Room(99 * 2**20, 0.5, 0.5), "error"),
        (Room(50 * GIB, 0.5, 0.01), "error"),
    ],
)
def test_disks(room: Room, state: str) -> None:
    check = disk_check("state disk", "/var/lib/runnerd", "the journal cannot record", room=room)
    words = ("/var/lib/runnerd",) if state == "ok" else ("the journal cannot record", "df -h /var/lib/runnerd")
    state_and_words(check, state, *words)


def test_a_disk_as_it_is(tmp_path: Path) -> None:
    assert "are free" in disk_check("x", str(tmp_path), "y").detail
    assert disk_check("x", str(tmp_path / "absent"), "y").state == "unknown"
    (tmp_path / "file").write_text("")
    state_and_words(disk_check("x", str(tmp_path / "file" / "below"), "y"), "error", "Not a directory")


# --- configuration and deployments ------------------------------------------------------------------------------


def test_configuration() -> None:
    state_and_words(configuration_check([], 1), "ok", "1 file in force")
    two = [Problem(message="unknown key 'x'", place=PLACE), Problem(message="y")]
    state_and_words(
        configuration_check(two, 3), "error", f"{PLACE}: unknown key 'x' and 1 more", "runnerctl config check"
    )


def test_deployments(tmp_path: Path) -> None:
    config = Config(settings=None)  # type: ignore[arg-type]
    ready = Entry(deployment=a_deployment("ready"), flow="etl", deployment_id="d-1")
    paused = Entry(deployment=a_deployment("paused"), flow="etl", deployment_id="d-2", paused=True)
    state_and_words(deployments_check([ready, paused], config), "ok", "2 registered, 1 of them paused")
    waiting = Entry(deployment=a_deployment("waiting"))
    state_and_words(deployments_check([ready, waiting], config), "warning", "waiting wait to be registered")
    failed = replace(waiting, problem="there is no function f")
    one = deployments_check([ready, failed], config)
    state_and_words(one, "error", "waiting cannot be registered: there is no function f", "runnerctl status")
    two = deployments_check([failed, replace(failed, flow="etl")], config)
    state_and_words(two, "error", "waiting, etl/waiting cannot be registered: waiting: there is no function f")
    stale = replace(ready, invalid=True, problem="unknown key")
    dead = replace(config, invalid=(InvalidDeployment(name=None, place=PLACE, problem="no name"),))
    words = ("a deployment without a name cannot run", "etl/ready run as their files last were")
    state_and_words(deployments_check([stale], dead), "error", *words)


def test_work_pools() -> None:
    state_and_words(pools_check([], []), "ok", "none to serve")
    settings = PoolSettings(name="etl", run=a_deployment().run, place=Place("f"))
    unknown = Served(settings=settings)
    known = replace(unknown, pool=WorkPool(id="p-1", name="etl", type="process"))
    state_and_words(pools_check([known], []), "ok", "etl served")
    state_and_words(pools_check([known, unknown], []), "warning", "etl not known yet", "the api check")
    problem = pools_check([known], [(known, "there is no type dock")])
    state_and_words(problem, "error", "cannot be served: etl: there is no type dock", "tried again")


# --- interpreters -----------------------------------------------------------------------------------------------

SERVER = server_info("3.8.8")


def a_source(name: str, *, problem: str | None = None, **run: Json) -> Source:
    return Source(name=name, run=a_deployment(run=run).run, problem=problem)


def an_interpreter(problem: str | None = None) -> Interpreter:
    return interpreters_of([a_source("etl/nightly", problem=problem, python="/opt/etl/bin/python", user="etl")])[0]


@pytest.mark.parametrize(
    ("answer", "server", "state", "words"),
    [
        (Answer("3.11", "3.8.8"), SERVER, "ok", "Prefect 3.8.8, Python 3.11; etl/nightly uses it"),
        (Answer("3.11", "3.8.8"), "away", "ok", "Prefect 3.8.8"),
        (Answer("3.11", "2.20.25"), server_info("2.20.25"), "ok", "Prefect 2.20.25"),
        (Answer("3.11", "3.8.8"), server_info("2.20.25"), "error", "pip install 'prefect>=2.20,<3'"),
        (Answer("3.11", "2.20.25"), SERVER, "error", "/opt/etl/bin/python -m pip install 'prefect>=3,<4'"),
        (Answer("3.11", "2.19.0"), server_info("2.20.25"), "warning", "its Prefect 2.19.0 is older"),
        (Answer("3.11", "2.19.0"), "away", "warning", "its Prefect 2.19.0 is older"),
        (Answer("3.11", None), SERVER, "error", "it has no Prefect"),
        (Answer("3.11", "unheard-of"), SERVER, "ok", "Prefect unheard-of"),
        ("no such interpreter /x", SERVER, "error", "it cannot be run: no such interpreter /x"),
    ],
)
def test_an_interpreter(answer: Answer | str, server: object, state: str, words: str) -> None:
    check = interpreter_check(an_interpreter(), answer, server)  # type: ignore[arg-type]
    assert check.name == "python /opt/etl/bin/python as etl"
    state_and_words(check, state, words)


def test_an_interpreter_whose_prefect_does_not_import() -> None:
    broken = an_interpreter(problem="/opt/etl/bin/python: cannot import prefect: ModuleNotFoundError: pydantic")
    check = interpreter_check(broken, Answer("3.11", "3.8.8"), SERVER)
    state_and_words(check, "error", "it has Prefect 3.8.8, but ", "pydantic", "pip install")


def test_each_interpreter_is_one_check_a_user() -> None:
    runs = [{}, {}, {"user": "etl"}, {"python": "/x"}, {"user": "etl", "group": "g"}]
    found = interpreters_of([a_source(f"d{n}", **run) for n, run in enumerate(runs)])
    assert [len(one.sources) for one in found] == [2, 1, 1, 1]
    assert len({one.name for one in found}) == 4


def test_reading_an_answer() -> None:
    assert read_answer("3.11 3.8.8\n") == Answer("3.11", "3.8.8")
    assert read_answer("3.11 \n") == Answer("3.11", None)
    for text in ("", "3.11 3.8", "a b c\n", "\n"):
        assert read_answer(text) is None
