"""keeper.py: when a source is pulled, what is in force, and what a failure leaves as it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from runnerd.core.problems import Problems
from runnerd.core.settings import Config, Deployment
from runnerd.deployments.sources.credentials import Login
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.pulling import Pulled
from runnerd.deployments.sources.table import store_name
from tests.kits.nouns import Json, a_deployment, settings
from tests.kits.sources import FakeCredentials, FakePuller, a_keeper, a_source, a_tree

A, B = Pulled(tree=a_tree("a")), Pulled(tree=a_tree("b"))


def a_pulled(name: str = "etl", **source: Json) -> Deployment:
    deployment = a_deployment(name, run={"working_directory": "/"}, entrypoint="flows/etl.py:etl")
    return replace(deployment, source=a_source(**source))


@asynccontextmanager
async def running(keeper: SourceKeeper, *deployments: Deployment) -> AsyncIterator[SourceKeeper]:
    take(keeper, *deployments)
    keeper.moved.clear()  # set because of the files; below, because of a pull
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
        assert not task.done(), "pulling has ended"
    finally:
        task.cancel()
        await asyncio.wait([task])


def take(keeper: SourceKeeper, *deployments: Deployment) -> list[Deployment]:
    return list(keeper.take(Config(settings=settings(), deployments=deployments)).deployments)


async def test_it_is_pulled_at_once_and_then_at_each_interval() -> None:
    puller, etl = FakePuller(A), a_pulled(pull_interval_s=60.0)
    async with running(a_keeper(puller), etl) as keeper:
        await keeper.moved.wait()
        assert len(puller.wanted) == 1
        located = keeper.locate(etl)
        assert (located.tree, located.run.working_directory) == (A.tree, A.tree.directory)
        await asyncio.sleep(59)
        assert len(puller.wanted) == 1
        await asyncio.sleep(2)
        assert len(puller.wanted) == 2
        await asyncio.sleep(600)
        assert len(puller.wanted) == 12


async def test_nothing_is_pulled_before_the_last_daemons_runs_are_adopted() -> None:
    puller, etl = FakePuller(A), a_pulled()
    keeper = a_keeper(puller)
    take(keeper, etl)
    assert await keeper.fresh(etl) == "its code cannot be pulled: this is under way"
    assert puller.wanted == []


async def test_deployments_with_the_same_source_and_user_are_pulled_together() -> None:
    puller = FakePuller(A)
    other = replace(a_pulled("other"), entrypoint="flows/other.py:f")
    ours = [a_pulled("one"), a_pulled("two"), other, a_pulled("three", branch="dev")]
    async with running(a_keeper(puller), *ours) as keeper:
        await keeper.moved.wait()
        await asyncio.sleep(1)
        assert [(one.source.branch, one.entrypoints) for one in puller.wanted] == [
            ("main", ["flows/etl.py", "flows/other.py"]),
            ("dev", ["flows/etl.py"]),
        ]


async def test_one_repository_is_changed_by_one_process_at_a_time() -> None:
    puller = FakePuller(A, hold=asyncio.Event())
    async with running(a_keeper(puller), a_pulled("one"), a_pulled("two", branch="dev")) as keeper:
        await asyncio.sleep(1)
        assert len(puller.wanted) == 1
        puller.hold.set()
        await keeper.moved.wait()
        await asyncio.sleep(1)
        assert len(puller.wanted) == 2


async def test_a_failed_pull_keeps_the_last_good_tree_and_says_so() -> None:
    puller, etl, problems = FakePuller(A), a_pulled(), Problems()
    async with running(a_keeper(puller, problems=problems), etl) as keeper:
        await keeper.moved.wait()
        assert problems.all() == []
        puller.answer = "the repository needs a password"
        await asyncio.sleep(61)
        assert keeper.locate(etl).tree == A.tree
        assert keeper.why_not(etl) is None
        (problem,) = problems.all()
        assert problem.message == (
            "cannot pull https://git.example/etl.git branch main: the repository needs a password;"
            " runs use aaaaaaaaaaaa"
        )
        assert problem.place == etl.place
        puller.answer = B
        await asyncio.sleep(61)
        assert problems.all() == []
        assert keeper.locate(etl).tree == B.tree


async def test_one_that_was_never_pulled_says_why_it_cannot_run() -> None:
    puller, etl = FakePuller("there is no such repository"), a_pulled()
    async with running(a_keeper(puller), etl) as keeper:
        assert keeper.why_not(etl) is None, "nobody knows yet"
        await keeper.moved.wait()
        assert keeper.why_not(etl) == "there is no such repository"
        assert keeper.locate(etl).awaits_tree
        assert await keeper.fresh(etl) == "its code cannot be pulled: there is no such repository"


async def test_a_run_waits_for_a_pull_that_is_due_and_not_for_one_that_hangs() -> None:
    puller, etl = FakePuller(A), a_pulled(pull_interval_s=3600.0)
    async with running(a_keeper(puller), etl) as keeper:
        await keeper.moved.wait()
        assert (await located(keeper, etl)).tree == A.tree
        assert len(puller.wanted) == 1, "it was pulled a moment ago"
        await asyncio.sleep(3599)
        puller.answer, puller.hold = B, asyncio.Event()
        await asyncio.sleep(2)
        before = asyncio.get_running_loop().time()
        assert (await located(keeper, etl)).tree == A.tree
        assert asyncio.get_running_loop().time() - before < 1, "the pull under way is the loop's, and the tree is there"
        puller.hold.set()


async def located(keeper: SourceKeeper, deployment: Deployment) -> Deployment:
    found = await keeper.fresh(deployment)
    assert isinstance(found, Deployment), found
    return found


async def test_a_hanging_source_holds_up_no_other() -> None:
    class OneHangs(FakePuller):
        async def pull(self, wanted: Json) -> Pulled | str:
            if wanted.source.branch == "hangs":
                await asyncio.Event().wait()
            return await super().pull(wanted)

    puller = OneHangs(A)
    bad, good = a_pulled("bad", branch="hangs", url="https://h/a.git"), a_pulled("good")
    async with running(a_keeper(puller), bad, good) as keeper:
        await keeper.moved.wait()
        assert keeper.locate(good).tree == A.tree
        pulled = len(puller.wanted)
        await asyncio.sleep(301)
        assert len(puller.wanted) == pulled + 5


async def test_many_hanging_sources_hold_up_no_other_for_longer_than_once() -> None:
    class MostHang(FakePuller):
        async def pull(self, wanted: Json) -> Pulled | str:
            if wanted.source.branch == "hangs":
                await asyncio.sleep(300)
                return "pulling it took longer than 5min; see time_limit"
            return await super().pull(wanted)

    puller = MostHang(A)
    bad = [a_pulled(f"bad-{number}", branch="hangs", url=f"https://h/{number}.git") for number in range(8)]
    good = a_pulled("good", pull_interval_s=60.0)
    async with running(a_keeper(puller), *bad, good) as keeper:
        await asyncio.sleep(601)  # each has been tried once
        assert keeper.locate(good).tree == A.tree
        pulled = len(puller.wanted)
        await asyncio.sleep(601)
        assert len(puller.wanted) == pulled + 10


async def test_what_is_in_use_is_kept() -> None:
    puller, etl = FakePuller(A), a_pulled()
    in_use = [a_tree("c").directory]
    async with running(a_keeper(puller, in_use=lambda: in_use), etl) as keeper:
        await keeper.moved.wait()
        puller.answer = B
        await asyncio.sleep(61)
        assert set(puller.wanted[-1].keep) == {f"{'c' * 40}-00000000", f"{'a' * 40}-00000000"}
        assert puller.wanted[-1].history == ()
        await asyncio.sleep(61)
        assert puller.wanted[-1].history == ("a" * 40,)
        assert set(puller.wanted[-1].keep) == {f"{'c' * 40}-00000000", f"{'b' * 40}-00000000"}


async def test_trees_of_others_are_not_listed_and_their_stores_are() -> None:
    """Of two thousand sources, else, the names of all trees would not fit into the variable of one pull."""
    puller, other = FakePuller(A), "/x/0-t/0123456789abcdef/trees/" + "d" * 40 + "-00000000"
    ours, theirs = a_pulled(), a_pulled("other", url="https://h/other.git")
    async with running(a_keeper(puller, in_use=lambda: [other]), ours, theirs) as keeper:
        await keeper.moved.wait()
        await asyncio.sleep(61)
        for wanted in puller.wanted:
            assert os.path.basename(other) not in wanted.keep
            assert set(wanted.stores) == {"0123456789abcdef", *map(store_name, (ours.source, theirs.source))}  # type: ignore[arg-type]


async def test_an_entrypoint_that_leads_out_of_the_tree_stops_its_own_deployment_only() -> None:
    puller = FakePuller(replace(A, outside=frozenset({"flows/out.py"})))
    good, bad = a_pulled("good"), replace(a_pulled("bad"), entrypoint="flows/out.py:f")
    async with running(a_keeper(puller), good, bad) as keeper:
        await keeper.moved.wait()
        assert keeper.locate(good).tree == A.tree
        assert keeper.locate(bad).tree is None
        words = "its entrypoint flows/out.py leads out of the tree of its source"
        assert (keeper.why_not(good), keeper.why_not(bad)) == (None, words)
        keeper.moved.clear()
        puller.answer = A
        await keeper.moved.wait()
        assert keeper.locate(bad).tree == A.tree


async def test_a_commit_is_held_until_it_is_released(tmp_path: Path) -> None:
    puller, etl, path = FakePuller(A, by_commit={"a" * 40: A}), a_pulled(), tmp_path / "sources.json"
    async with running(a_keeper(puller, path=path), etl) as keeper:
        await keeper.moved.wait()
        puller.answer = B
        assert await keeper.pull(etl, afresh=True) is None
        one = keeper.of(etl)
        assert one is not None
        before = one.version(None)
        assert before == "a" * 40
        assert await keeper.hold(etl, before) is None
        assert keeper.locate(etl).tree == A.tree
        await asyncio.sleep(300)
        assert keeper.locate(etl).tree == A.tree
    next_keeper = a_keeper(puller, path=path)
    (located,) = take(next_keeper, etl)
    assert located.tree == A.tree, "the next daemon has it before it has pulled"
    async with running(next_keeper, etl):
        await asyncio.sleep(300)
        assert next_keeper.locate(etl).tree == A.tree, "and holds it"
        assert await next_keeper.release(etl) is None
        assert next_keeper.locate(etl).tree == B.tree
        one = next_keeper.of(etl)
        assert one is not None and one.state.held is None


async def test_a_commit_that_is_not_there_is_not_held() -> None:
    puller, etl, problems = FakePuller(A), a_pulled(), Problems()
    async with running(a_keeper(puller, problems=problems), etl) as keeper:
        await keeper.moved.wait()
        assert await keeper.hold(etl, "f" * 40) == f"there is no commit {'f' * 40}"
        assert keeper.locate(etl).tree == A.tree
        one = keeper.of(etl)
        assert one is not None and one.state.held is None
        assert problems.all() == []
        await asyncio.sleep(61)
        assert puller.wanted[-1].commit is None


async def test_credentials_are_read_at_each_pull() -> None:
    puller, etl, credentials = FakePuller(A), a_pulled(), FakeCredentials(Login("ada", "one"))
    async with running(a_keeper(puller, credentials=credentials), etl) as keeper:
        await keeper.moved.wait()
        credentials.login = Login("ada", "two")
        await asyncio.sleep(61)
        assert [one.login.password for one in puller.wanted if one.login is not None] == ["one", "two"]
        assert "two" not in repr(puller.wanted)
        credentials.login = "cannot read the credentials /etc/x: Permission denied"
        await asyncio.sleep(61)
        assert len(puller.wanted) == 2
        one = keeper.of(etl)
        assert one is not None and one.problem == credentials.login


async def test_a_pull_that_goes_wrong_in_the_daemon_ends_nothing() -> None:
    class Odd(FakePuller):
        async def pull(self, wanted: Json) -> Pulled | str:
            if not self.wanted:
                self.wanted.append(wanted)
                raise RuntimeError("odd")
            return await super().pull(wanted)

    etl = a_pulled()
    async with running(a_keeper(Odd(A)), etl) as keeper:
        await keeper.moved.wait()
        assert keeper.why_not(etl) == "RuntimeError: odd"
        await asyncio.sleep(61)
        assert keeper.locate(etl).tree == A.tree


async def test_a_source_that_left_the_files_is_not_pulled_any_more() -> None:
    puller, etl = FakePuller(A), a_pulled()
    async with running(a_keeper(puller), etl) as keeper:
        await keeper.moved.wait()
        take(keeper)
        await asyncio.sleep(600)
        assert len(puller.wanted) == 1
        assert await keeper.fresh(a_deployment("plain")) == a_deployment("plain")
