"""How runs end: by themselves, by a stop, by a limit; and what is left of them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.processes.protocol import Record
from runnerd.spawner.proc.identity import is_alive
from tests.kits.spawner import Link, SpawnerUnderTest, assert_nothing_left, wait_until


async def end_of(spawner: SpawnerUnderTest, spec: LaunchSpec) -> Record:
    async with spawner.link() as link:
        await link.client.spawn(spec)
        return await link.until(spec.key, "exited")


async def test_exit_code(spawner: SpawnerUnderTest) -> None:
    record = await end_of(spawner, spawner.spec("run", mode=("exit", "7")))
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal, record.stop_reason) == (7, None, None)
    assert record.exit.at is not None
    assert record.exit.at >= record.started_at


async def test_signal_of_its_own(spawner: SpawnerUnderTest) -> None:
    record = await end_of(spawner, spawner.spec("run", mode=("die-by", str(signal.SIGSEGV.value))))
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal) == (None, signal.SIGSEGV)


async def test_what_it_used(spawner: SpawnerUnderTest) -> None:
    record = await end_of(spawner, spawner.spec("run", mode=("spin",)))
    assert record.exit is not None
    assert record.exit.cpu_s is not None
    assert record.exit.max_rss_bytes is not None
    assert record.exit.cpu_s >= 0.3
    assert record.exit.max_rss_bytes > 2**20


async def test_phases_of_a_plain_run(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        answer = await link.client.spawn(spawner.spec("run", "true"))
        assert answer.error is None
        await link.until("run", "exited")
        assert link.phases("run") == ["running", "exited"]


async def test_spawn_is_idempotent(spawner: SpawnerUnderTest) -> None:
    spec = spawner.spec("run", "sh", "-c", "echo started; exit 4")
    async with spawner.link() as link:
        answers = await asyncio.gather(*(link.client.spawn(spec) for _ in range(5)))
        assert len({answer.identity for answer in answers}) == 1
        ended = await link.until("run", "exited")
        assert await link.client.spawn(spec) == ended
        second = await link.client.spawn(spawner.spec("run", "true", attempt=1))
        assert second.identity != ended.identity
        await link.until("run", "exited", attempt=1)
    assert spawner.output("run") == "started\n"


# --- what is left of it -------------------------------------------------------------------------------------


async def test_stragglers_are_swept_before_the_exit_is_told(spawner: SpawnerUnderTest) -> None:
    record = await end_of(spawner, spawner.spec("run", mode=("straggler",)))
    stragglers = [int(line) for line in spawner.output("run").split() if line.isdigit()]
    assert len(stragglers) == 2
    assert not any(is_alive(pid) for pid in stragglers)
    assert record.exit is not None
    assert record.exit.code == 0


async def test_no_zombies_after_many_runs(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        keys = [f"r{number}" for number in range(20)]
        await asyncio.gather(*(link.client.spawn(spawner.spec(key, "sh", "-c", "true & true")) for key in keys))
        records = [await link.until(key, "exited") for key in keys]
        assert all(record.exit is not None and record.exit.code == 0 for record in records)
        assert {record.phase for record in await link.client.list()} == {"exited"}
    assert_nothing_left(spawner)


async def test_out_of_descriptors_it_refuses_and_still_concludes(spawner: SpawnerUnderTest) -> None:
    assert spawner.process is not None
    pid = spawner.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with spawner.link() as link:
        run = await running(link, spawner, spawner.spec("run", mode=("straggler", "and stay")))
        assert run.identity is not None
        used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(used) + 1, before[1]))
        refused = await link.client.spawn(spawner.spec("more", "true"))
        assert refused.error is not None
        assert refused.error.message == "cannot start: cannot fork: Too many open files"
        os.kill(run.identity.pid, signal.SIGKILL)
        cannot_sweep = lambda: "key=run attempt=0 cannot find its remaining processes" in spawner.said()  # noqa: E731
        await asyncio.to_thread(wait_until, cannot_sweep, "the sweep to fail")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert record.exit.signal == signal.SIGKILL
    stragglers = [int(line) for line in spawner.output("run").split() if line.isdigit()]
    assert not any(is_alive(pid) for pid in stragglers)


# --- stop -----------------------------------------------------------------------------------------------------


async def running(link: Link, spawner: SpawnerUnderTest, spec: LaunchSpec) -> Record:
    record = await link.client.spawn(spec)
    await asyncio.to_thread(spawner.wait_for_output, spec.key)
    return record


async def test_polite_run_ends_by_the_first_signal(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("wait",)))
        answer = await link.client.stop(key="run", attempt=0, reason="cancel")
        assert answer is not None
        assert (answer.phase, answer.stop_reason) == ("stopping", "cancel")
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert (record.exit.signal, record.stop_reason) == (signal.SIGTERM, "cancel")
        assert link.phases("run") == ["running", "stopping", "exited"]
        assert await link.client.stop(key="run", attempt=0, reason="late") == record


@pytest.mark.parametrize("in_spec", [True, False])
async def test_stop_signal_is_the_specs_unless_given(spawner: SpawnerUnderTest, in_spec: bool) -> None:
    async with spawner.link() as link:
        spec = spawner.spec("run", mode=("wait",), stop_signal=signal.SIGINT if in_spec else signal.SIGTERM)
        await running(link, spawner, spec)
        given = None if in_spec else signal.SIGUSR1.value
        await link.client.stop(key="run", attempt=0, reason="cancel", signal=given)
        record = await link.until("run", "exited")
        # The interpreter turns SIGINT into its own end, and then dies by it.
        assert record.exit is not None
        assert record.exit.signal == (signal.SIGINT if in_spec else signal.SIGUSR1)


async def test_stubborn_run_is_killed_with_all_its_group_after_its_timeout(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        spec = spawner.spec("run", mode=("straggler", "and stay"), stop_signal=signal.SIGWINCH, stop_timeout_s=0.3)
        await running(link, spawner, spec)
        begin = time.monotonic()
        await link.client.stop(key="run", attempt=0, reason="cancel")
        record = await link.until("run", "exited")
        assert time.monotonic() - begin >= 0.3
        assert record.exit is not None
        assert record.exit.signal == signal.SIGKILL
        assert link.phases("run") == ["running", "stopping", "killing", "exited"]
    stragglers = [int(line) for line in spawner.output("run").split() if line.isdigit()]
    assert not any(is_alive(pid) for pid in stragglers)


async def test_timeout_0_kills_at_once(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("ignore-term",)))
        answer = await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        assert answer is not None
        assert answer.phase == "killing"
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert (record.exit.signal, record.stop_reason) == (signal.SIGKILL, "cancel")


async def test_second_stop_signals_no_more_and_keeps_the_first_reason(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("count-term",), stop_timeout_s=600))
        first = await link.client.stop(key="run", attempt=0, reason="cancel")
        await asyncio.to_thread(spawner.wait_for_output, "run", "asked")
        assert await link.client.stop(key="run", attempt=0, reason="evict") == first
        now = await link.client.stop(key="run", attempt=0, reason="evict", timeout_s=0)
        assert now is not None
        assert (now.phase, now.stop_reason) == ("killing", "cancel")
        await link.until("run", "exited")
    assert spawner.output("run").split() == ["ready", "asked"]


async def test_the_log_has_an_administrators_word_for_the_reason_and_the_record_the_daemons(
    spawner: SpawnerUnderTest,
) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("count-term",), stop_timeout_s=600))
        await link.client.stop(key="run", attempt=0, reason="evict", timeout_s=0)
        record = await link.until("run", "exited")
        assert record.stop_reason == "evict"
    assert "phase=killing" in spawner.said()
    assert "reason=drain" in spawner.said()
    assert "reason=evict" not in spawner.said()


@pytest.mark.parametrize(("at_first", "then"), [(600, 0.1), (0.3, 600)])
async def test_second_stop_can_bring_the_end_nearer_but_not_put_it_off(
    spawner: SpawnerUnderTest, at_first: float, then: float
) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("ignore-term",), stop_timeout_s=at_first))
        await link.client.stop(key="run", attempt=0, reason="cancel")
        await link.client.stop(key="run", attempt=0, reason="evict", timeout_s=then)
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert record.exit.signal == signal.SIGKILL


async def test_stopped_process_is_woken_for_its_end(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("stop-self",), stop_timeout_s=600))
        await link.client.stop(key="run", attempt=0, reason="cancel")
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert record.exit.signal == signal.SIGTERM


async def test_runtime_max_ends_it_as_a_timeout(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        spec = spawner.spec("run", mode=("ignore-term",), runtime_max_s=0.5, stop_timeout_s=0.2)
        await link.client.spawn(spec)
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert record.exit.at is not None
        assert record.stop_reason == "timeout"
        assert (record.exit.at - record.started_at).total_seconds() >= 0.5


async def test_stop_of_a_run_that_has_only_just_been_asked_for(spawner: SpawnerUnderTest) -> None:
    """Wherever the child is on its way, it ends, and it ends once."""
    async with spawner.link() as link:
        for number in range(20):
            key = f"r{number}"
            spec = spawner.spec(key, mode=("wait",), stop_timeout_s=600)
            started, stopped = await asyncio.gather(
                link.client.spawn(spec), link.client.stop(key=key, attempt=0, reason="cancel")
            )
            assert stopped is not None
            assert started.identity == stopped.identity
            record = await link.until(key, "exited")
            assert record.exit is not None
            assert record.exit.signal == signal.SIGTERM
            assert link.phases(key).count("exited") == 1


async def test_plain_signal_changes_no_phase(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("count-term",)))
        record = await link.client.signal(key="run", attempt=0, signal=signal.SIGTERM)
        assert record is not None
        assert record.phase == "running"
        await asyncio.to_thread(spawner.wait_for_output, "run", "asked")
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        await link.until("run", "exited")


# --- records --------------------------------------------------------------------------------------------------


async def test_unknown_runs_are_values_not_errors(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        assert await link.client.stop(key="none", attempt=0, reason="cancel") is None
        assert await link.client.signal(key="none", attempt=0, signal=15) is None
        assert await link.client.forget(key="none", attempt=0) is False


async def test_forget_takes_the_record_off_the_disk(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await running(link, spawner, spawner.spec("run", mode=("wait",)))
        with pytest.raises(SpawnerError, match="cannot forget run run: it is running"):
            await link.client.forget(key="run", attempt=0)
        await link.client.stop(key="run", attempt=0, reason="cancel")
        await link.until("run", "exited")
        assert [path.name for path in spawner.records.iterdir()] == ["run.0.json"]
        assert await link.client.forget(key="run", attempt=0) is True
        assert list(spawner.records.iterdir()) == []
        assert await link.client.list() == []


async def test_environment_is_in_no_file_and_no_log(spawner: SpawnerUnderTest) -> None:
    spec = spawner.spec("run", "true", environment={"PATH": "/usr/bin:/bin", "KEY": "s3cr3t"})
    await end_of(spawner, spec)
    (record,) = spawner.records.iterdir()
    assert "s3cr3t" not in record.read_text() + spawner.said()
