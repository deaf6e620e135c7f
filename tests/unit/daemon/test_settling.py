"""settling.py: what a reload waits for, and when it gives up on an API that does not answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.kits.reloading import reloads

TWO = "deployments: [{name: two, entrypoint: 'flows/etl.py:nightly'}]\n"


async def test_a_request_that_was_given_up_long_ago_is_no_silence(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.prefect.mute = True
        given_up = asyncio.create_task(at.host.api.check())
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.sleep(60)
        at.files.write("conf.d/20.yaml", TWO)
        reload = asyncio.create_task(at.reload())
        await asyncio.sleep(5)
        at.host.prefect.mute = False
        document = await reload
        assert (document["settled"], document["problems"]) == (True, [])


async def test_an_api_that_has_not_answered_for_long_is_not_waited_for(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.prefect.mute = True
        waiting = asyncio.create_task(at.host.api.check())
        await asyncio.sleep(9)
        at.files.write("conf.d/20.yaml", TWO)
        async with asyncio.timeout(5):
            document = await at.reload()
        (problem,) = [one["message"] for one in document["problems"]]
        assert problem.startswith("not registered yet: two (Prefect at http://prefect.test/api has not answered for 1")
        assert document["settled"] is False
        waiting.cancel()
