"""The life of a host that serves a work pool, on real servers of both majors: starts, kills, stops, turns, limits."""

from __future__ import annotations

import os

from runnerd.pools.job.process_job import process_template
from tests.kits.daemon import KILL, TERM, alive, eventually
from tests.kits.fault_proxy import DAEMON, FaultProxy, hang, slow
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import STUBBORN, PoolHost, new_pool, pools_of


def test_a_pool_s_runs_outlive_the_daemon_and_are_cancelled(prefect: PrefectServer) -> None:
    host, pool = PoolHost(prefect), new_pool()
    graceful = {**process_template(prefect.major)}
    graceful["job_configuration"]["grace_period_seconds"] = "{{ grace_period_seconds }}"
    graceful["variables"]["properties"]["grace_period_seconds"] = {"type": "integer"}
    host.api.call("POST", "/work_pools/", {"name": pool, "type": "process", "base_job_template": graceful})
    with pools_of(host, f"pools: [{{name: {pool}, create: false, run: {{stop_timeout: 600s}}}}]", pool):
        host.serves(pool)
        eventually(lambda: host.worker(pool) == "ONLINE", "the worker to be seen")
        hooked = {"entrypoint": "hook_flows.py:hooked"}
        in_prefect = host.create_run(host.deploy(pool, "hooked", **hooked))
        stubborn = {"command": STUBBORN, "grace_period_seconds": 1}
        on_host = host.create_run(host.deploy(pool, "stubborn", **hooked, job_variables=stubborn))
        gated = {"command": host.tiny(gated=True)}
        limited = {"concurrency_limit": 1} if prefect.major >= 3 else {}
        one_at_a_time = host.deploy(pool, "kept", job_variables=gated, **limited)
        kept = host.create_run(one_at_a_time)
        eventually(lambda: {"began", on_host, kept} <= set(host.marked()), f"all to begin:\n{host.said()}")
        next_one = host.create_run(one_at_a_time)
        if limited:
            waits = "AwaitingConcurrencySlot"
            eventually(lambda: host.api.run(next_one)["state"]["name"] == waits, "the second of one deployment to wait")
        groups = {run_id: host.document(run_id)["pgid"] for run_id in (in_prefect, on_host, kept)}

        host.kill()
        assert all(alive(group) for group in groups.values())
        host.gate.touch()
        eventually(lambda: not alive(groups[kept]), "a run to end with nobody watching")
        assert host.worker(pool) == "ONLINE"
        host.start()
        host.serves(pool)
        assert host.worker(pool) == "ONLINE"
        host.ends(kept, "COMPLETED")

        host.api.cancel(in_prefect)
        assert host.ctl("cancel", on_host).returncode == 0
        for run_id in (in_prefect, on_host):
            assert host.ends(run_id, "CANCELLED")["state"]["name"] == "Cancelled"
            host.ended(run_id)
            assert not group_left(groups[run_id])
            marks = [line for line in host.marks.read_text().splitlines() if line.startswith("on_")]
            assert [line.split()[:3] for line in marks if run_id in line] == [["on_cancellation", run_id, "CANCELLED"]]
        assert host.document(on_host)["exit"]["signal"] == KILL
        assert host.api.history(kept) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
        host.ends(next_one, "COMPLETED")
        assert [host.marked().count(run_id) for run_id in (kept, next_one)] == [1, 1]

        host.signal(TERM)
        assert host.wait() == 0
        eventually(lambda: host.worker(pool) == "OFFLINE", "the server to see that the host has stopped")


def group_left(pgid: int) -> bool:
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    return True


def test_priorities_pauses_and_limits(prefect: PrefectServer) -> None:
    host, pool = PoolHost(prefect, more="limits: {runs: 1}\n"), new_pool()
    api, its = host.api, f"/work_pools/{pool}"
    api.call("POST", "/work_pools/", {"name": pool, "type": "process"})  # a bare one is given its template
    for name, priority in (("slow", 9), ("urgent", 1), ("shut", 5)):
        host.queue(pool, name, priority=priority)
    with pools_of(host, f"pools: [{{name: {pool}, prefetch: 1s}}]", pool):
        host.serves(pool)
        assert [one["name"] for one in host.pool(pool)["queues"]] == ["urgent", "default", "shut", "slow"]
        assert api.call("GET", its)["base_job_template"] == process_template(prefect.major)
        variables = {"job_variables": {"command": host.tiny()}}
        there = {
            name: host.deploy(pool, name, work_queue_name=name, **variables)
            for name in ("slow", "default", "urgent", "shut")
        }

        # What is paused delivers nothing; then the one slot of this host goes by priority, not by age.
        api.call("PATCH", its, {"is_paused": True})
        api.call("PATCH", f"{its}/queues/shut", {"is_paused": True})
        runs = {name: host.create_run(deployment_id) for name, deployment_id in there.items()}
        host.polls(pool)
        assert {api.state(run_id) for run_id in runs.values()} == {"SCHEDULED"}
        assert "paused" in host.ctl("pool", "inspect", pool).stdout.lower()
        api.call("PATCH", its, {"is_paused": False})
        for name in ("slow", "default", "urgent"):
            host.ends(runs[name], "COMPLETED")
        assert host.marked() == [runs["urgent"], runs["default"], runs["slow"]]
        host.polls(pool)
        assert api.state(runs["shut"]) == "SCHEDULED"
        api.call("PATCH", f"{its}/queues/shut", {"is_paused": False})
        host.ends(runs["shut"], "COMPLETED")

        # One at a time, though this host had room for more.
        host.write_main((host.config / "runnerd.yaml").read_text().replace("{runs: 1}", "{runs: 5}"))
        assert host.ctl("reload").returncode == 0
        for limited in (its, f"{its}/queues/slow"):
            api.call("PATCH", limited, {"concurrency_limit": 1})
            gated = host.deploy(pool, "gated", work_queue_name="slow", job_variables={"command": host.tiny(gated=True)})
            first, second = host.create_run(gated), host.create_run(gated)
            eventually(lambda first=first: first in host.marked(), f"it to begin:\n{host.said()}")
            host.polls(pool)
            assert api.state(second) == "SCHEDULED"
            host.gate.touch()
            for run_id in (first, second):
                host.ends(run_id, "COMPLETED")
            host.gate.unlink()
            api.call("PATCH", limited, {"concurrency_limit": None})


def test_a_daemon_that_is_killed_while_it_claims_or_resolves_runs_nothing_twice(prefect: PrefectServer) -> None:
    with FaultProxy(upstream=prefect.url) as proxy:
        host, pool = PoolHost(prefect, url=proxy.url), new_pool()
        with pools_of(host, f"pools: [{{name: {pool}}}]", pool):
            host.serves(pool)
            gated = host.deploy(pool, "gated", job_variables={"command": host.tiny(gated=True)})
            host.gate.touch()
            for path, fault, reached in (
                ("/set_state$", slow(600), "PENDING"),  # it is claimed, and nobody hears of it
                ("/deployments/[^/]+$", hang(), "PENDING"),
                ("/work_pools/.*/get_scheduled_flow_runs", hang(), "SCHEDULED"),
            ):
                rule = proxy.add(fault, path=path, who=DAEMON)
                run_id = host.create_run(gated)
                eventually(lambda rule=rule: rule.struck, f"the daemon to ask {path}")
                eventually(
                    lambda run_id=run_id, reached=reached: host.api.state(run_id) == reached, f"{path} to be acted on"
                )
                host.kill()
                proxy.clear()
                host.start()
                host.ends(run_id, "COMPLETED")
                assert host.api.history(run_id) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
                assert host.marked().count(run_id) == 1
