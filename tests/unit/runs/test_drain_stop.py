"""drain.py: a drain that a second command changes, and the drain of a stopping daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runnerd.control.contract import Refused
from tests.kits.host import PEER, daemon


async def test_a_stop_is_not_undone(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.engine.drain.begin_stop(timeout_s=60.0)
        refused = one.host.undrain(peer=PEER)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.detail) == (409, "cannot undrain: the host is stopping")
        before = one.engine.drain.draining
        one.host.drain(timeout_s=5.0, reason="mine", peer=PEER)
        assert one.engine.drain.draining is before
        assert one.host.status()["drain"]["stopping"] is True
        assert one.engine.offer(one.engine.add_run(one.engine.deploy())) == ()


async def test_a_second_drain_replaces_only_what_it_is_given(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        first = one.host.drain(timeout_s=60.0, reason="new kernel", peer=PEER)["drain"]
        await asyncio.sleep(1)
        assert one.host.drain(timeout_s=None, reason=None, peer=PEER)["drain"] == first
        later = one.host.drain(timeout_s=600.0, reason=None, peer=PEER)["drain"]
        assert (later["reason"], later["since"]) == ("new kernel", first["since"])
        assert later["until"] > first["until"]


async def test_the_words_of_a_run_that_a_drain_has_ended(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        loop = asyncio.create_task(one.engine.drain.run())
        run_id = await one.start()
        one.host.drain(timeout_s=10.0, reason=None, peer=PEER)
        record = await one.engine.until_done(run_id)
        assert record.words == "the host was drained; killed by SIGTERM"
        loop.cancel()
        await asyncio.wait([loop])
