"""resolving.py, side.py, wire.py: job templates that are made to take for ever, and the pools beside them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.prefect import BlockDocument
from runnerd.pools.job.process_job import ProcessJob, process_template
from runnerd.pools.job.side import SIDE
from runnerd.pools.job.template import Sources, Unresolvable
from runnerd.pools.job.wire import AgentSources, answer_request, read_answer, write_answer, write_request
from runnerd.pools.resolving import PAUSE_S, RETRY_S, JobResolver
from runnerd.system.side_process import SideFailure, SideProcess
from runnerd.system.side_program import Limits
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.pools import launched, launching, offer, pool_settings, pooled
from tests.kits.templates import KNOWN, AskedHere, sources

Json = Any
LIMITS = Limits(cpu_s=5, memory_bytes=512 * 2**20)


def doubling(depth: int = 40) -> dict[str, Json]:
    """A template that takes 2**depth steps to check, and a page to write down."""
    defs: dict[str, Json] = {f"d{n}": {"allOf": 2 * [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(depth)}
    defs[f"d{depth}"] = {"type": "string"}
    template = process_template()
    template["variables"]["$defs"] = defs
    template["variables"]["properties"]["x"] = {"$ref": "#/$defs/d0", "default": "y"}
    return template


def of_patterns() -> dict[str, Json]:
    template = process_template()
    template["variables"]["properties"]["x"] = {"type": "string", "pattern": "^(a+)+$", "default": "a" * 60 + "!"}
    return template


# --- what is refused --------------------------------------------------------------------------------------------


class Overruns(AskedHere):
    """Overruns at every template that has a `slow` key; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, request: bytes) -> bytes | SideFailure:
        self.asked += 1
        return SideFailure("it took more than 5s", overrun=True) if b'"slow"' in request else await super().ask(request)


def of(pool: str, **template: Json) -> Sources:
    return replace(sources({"name": "{{ name }}"}, {"name": {"default": "n"}}), pool=pool, template=template)


SLOW: dict[str, Json] = {"job_configuration": {}, "slow": True}
FINE: dict[str, Json] = {"job_configuration": {"name": "fine"}}


async def test_a_template_that_overran_is_refused_at_once() -> None:
    now, side = [0.0], Overruns()
    resolver = JobResolver(side=side, clock=lambda: now[0])
    words = "cannot resolve the job template of work pool bad: it took more than 5s; simplify its base job template"
    for _ in range(10):
        assert await resolver.resolve("bad", of("bad", **SLOW), {}) == Unresolvable(words)
    assert side.asked == 1
    assert resolver.problem("bad") == words
    assert resolver.problem("good") is None
    assert isinstance(await resolver.resolve("good", of("good", **FINE), {}), ProcessJob)
    assert side.asked == 2
    now[0] += PAUSE_S  # another template of this pool may be asked for again now, the same not yet
    assert await resolver.resolve("bad", of("bad", **SLOW), {}) == Unresolvable(words)
    assert side.asked == 2
    assert isinstance(await resolver.resolve("bad", of("bad", **FINE), {}), ProcessJob)
    assert resolver.problem("bad") is None
    await resolver.resolve("bad", of("bad", **SLOW), {})
    now[0] += RETRY_S
    assert resolver.problem("bad") is None
    await resolver.resolve("bad", of("bad", **SLOW), {})
    assert side.asked == 5


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"job_configuration": {"env": {"A": "x" * 9_000_000}}}, "larger than 8 MiB"),
        ({"job_configuration": {"env": {"A": "{{ x }}"}}, "variables": {"properties": {"x": 5}}}, "no valid JSON sch"),
    ],
)
async def test_templates_that_are_refused(template: Json, words: str) -> None:
    resolver = JobResolver(side=AskedHere(), clock=lambda: 0.0)
    answer = await resolver.resolve("P", of("P", **template), {})
    assert isinstance(answer, Unresolvable)
    assert words in answer.problem


async def test_a_template_nested_beyond_what_json_writes() -> None:
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    resolver = JobResolver(side=AskedHere(), clock=lambda: 0.0)
    answer = await resolver.resolve("P", of("P", job_configuration={"env": deep}), {})
    assert answer == Unresolvable("cannot resolve the job template of work pool P: it is nested too deeply")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"wanted": [["x"]]}', b'{"problem": 5}', b'{"job": {"env": 5}}', b"[" * 99_999]
)
def test_answers_that_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an? |Expecting"):
        read_answer(data)


def test_answers_come_back_as_they_were() -> None:
    job = ProcessJob(
        command=("a", "b"), env={"A": "\udcff"}, removed=frozenset({"B", "C"}), working_dir="/x", labels={"l": "1"},
        name="n", stream_output=False, grace_period_s=2.5, ignored=("i",),
    )  # fmt: skip
    for answer in (job, ProcessJob(), Unresolvable("why"), frozenset(KNOWN)):
        assert read_answer(write_answer(answer)) == answer


def test_a_block_s_job() -> None:
    block = BlockDocument(id="1", name="b", type_slug="process", data={"command": ["x"], "env": {"A": "1"}})
    asked = AgentSources(block=block, deployment="etl/a", overrides={"env.B": "2"})
    job = read_answer(answer_request(write_request(asked, {})))
    assert isinstance(job, ProcessJob)
    assert (job.command, dict(job.env)) == (("x",), {"A": "1", "B": "2"})


# --- by the real process ----------------------------------------------------------------------------------------


@pytest.mark.real_io
@pytest.mark.parametrize("make", [doubling, of_patterns])
async def test_a_hostile_template_costs_its_own_pool_only(tmp_path: Path, make: Callable[[], Json]) -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("bad", base_job_template=make())
    prefect.pools.create_pool("good", base_job_template=process_template())
    side = SideProcess(module=SIDE, limits=LIMITS._replace(cpu_s=1))
    wanted = [pool_settings("bad"), pool_settings("good")]
    try:
        async with launching(tmp_path, prefect=prefect, wanted=wanted, side=side) as (engine, spawner):
            bad, good = engine.add_run(pooled(engine, "bad")), engine.add_run(pooled(engine, "good"))
            await offer(engine, bad)
            await launched(engine, spawner, good)
            record = await engine.until_done(bad)
            assert "cannot resolve the job template of work pool bad: it took more than" in str(record.words)
            assert prefect.state_of(bad) == "CRASHED"
    finally:
        await side.close()


@pytest.mark.real_io
async def test_the_real_process_resolves_as_this_one_does() -> None:
    asked = sources(
        {"name": "{{ n }}", "env": {"A": "{{ prefect.variables.region }}"}},
        {"n": {"type": "string", "pattern": "^[a-z]+$"}},
        deployment_variables={"n": "A1"},
    )
    side = SideProcess(module=SIDE, limits=LIMITS)
    try:
        for one in (asked, replace(asked, deployment_variables={"n": "fine"})):
            request = write_request(one, KNOWN)
            assert await side.ask(request) == answer_request(request)
    finally:
        await side.close()
