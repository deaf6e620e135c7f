"""requesting.py, applying.py: servers that are older than keys of a deployment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runnerd.core.prefect import ApiCondition
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.old_prefect import Prefect300, Prefect21421
from tests.kits.nouns import a_deployment, fake_api
from tests.kits.registrar import a_host

A = a_deployment("a")


async def test_a_server_3_0_is_sent_no_key_that_it_does_not_know(tmp_path: Path) -> None:
    async with a_host(tmp_path, Prefect300()) as host:
        await host.want(A)
        assert host.entry(A).state is EntryState.READY
        changed = replace(A, description="Changed.")
        await host.want(changed)
        assert host.entry(changed).state is EntryState.READY
        assert host.stored("a")["description"] == "Changed."


async def test_a_key_that_is_stated_and_unknown_is_named(tmp_path: Path) -> None:
    limited = replace(A, concurrency_limit=1, collision_strategy="CANCEL_NEW")
    async with a_host(tmp_path, Prefect300()) as host:
        await host.want(limited)
        assert "concurrency_options: Extra inputs are not permitted" in (host.entry(limited).problem or "")


async def test_a_server_before_2_19_has_no_deployments_of_conf_d(tmp_path: Path) -> None:
    async with a_host(tmp_path, Prefect21421()) as host:
        await host.want(A)
        words = "Prefect 2.14.21 serves work pools only: deployments of conf.d need 2.19 or newer"
        assert words in (host.entry(A).problem or "")
        assert not any(asked.startswith("POST /deployments") for asked in host.prefect.asked)


async def test_labels_of_a_run_are_not_sent_before_3_2() -> None:
    prefect = Prefect300()
    api = fake_api(prefect)
    await api.pools.label_run("6f4f0d3e-7d0c-4d8c-9d4e-1f6f3f0f7f11", {"team": "data"})
    assert [asked for asked in prefect.asked if "labels" in asked] == []
    assert api.health.condition is ApiCondition.OK
