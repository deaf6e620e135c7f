"""Breaks a runnerd host on purpose, round after round, and says what did not hold.

    python -m tests.chaos.chaos --rounds 20 --seed 1       # both majors in turn
    python -m tests.chaos.chaos --steps --major 3          # SIGKILL of the daemon at each step of a run's life

A violation prints the command that repeats its round; the exit status is 1 when there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from tests.chaos.chaos_checks import RoundFacts, violations
from tests.chaos.chaos_facts import gather, story
from tests.chaos.chaos_host import ChaosHost
from tests.chaos.chaos_plan import Plan, make_plan
from tests.chaos.chaos_round import Round, Trigger
from tests.chaos.chaos_steps import Steps
from tests.kits.fault_proxy import FaultProxy
from tests.kits.prefect_servers import PrefectServer, running_server


class Station:
    """A real server, the proxy before it, and a host for as many rounds as leave it in order."""

    def __init__(self, server: PrefectServer, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self.trigger = Trigger(proxy)
        self.host = self._new_host()
        self.known: set[str] = set()

    def _new_host(self) -> ChaosHost:
        host = ChaosHost(server=self.server, proxy_url=self.proxy.url)
        try:
            host.begin()
        except BaseException:
            host.close()
            raise
        return host

    def play(self, plan: Plan) -> tuple[Round, RoundFacts]:
        played = Round(plan=plan, host=self.host, proxy=self.proxy, trigger=self.trigger)
        unsettled = played.play()
        self.known |= {run.id for run in played.runs}
        return played, gather(played, unsettled, self.known)

    def start_over(self, played: Round) -> None:
        """What went wrong must not be counted again: end its runs, and go on with a new host."""
        self.host.close()
        for run in played.runs:
            body = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
            self.host.api.call("POST", f"/flow_runs/{run.id}/set_state", body)
        self.host, self.known = self._new_host(), set()


class Chaos:
    """Plays rounds and counts."""

    def __init__(self, *, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self._stations: dict[int, Station] = {}
        self._stack = contextlib.ExitStack()
        self.rounds = 0
        self.injected: Counter[str] = Counter()
        self.violations: list[str] = []

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def time_is_up(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def play(self, plan: Plan, *, repeat: str) -> Round:
        """One round. `repeat` is the command line that plays it again."""
        station = self._station(plan.major)
        began = time.monotonic()
        played, facts = station.play(plan)
        found = violations(facts)
        self.rounds += 1
        self.injected.update(played.injected)
        took = f"{time.monotonic() - began:.1f}s"
        print(f"{'ok  ' if not found else 'FAIL'} {plan.name} on {plan.major} in {took}: {plan}", flush=True)
        if found:
            self.violations += [f"{plan.name} on {plan.major}: {words}" for words in found]
            print("\n".join(f"     VIOLATION: {words}" for words in found))
            print(f"     repeat with: {repeat}")
            print("\n".join(f"     | {line}" for line in story(played, facts).splitlines()), flush=True)
            station.start_over(played)
        return played

    def _station(self, major: int) -> Station:
        if major not in self._stations:
            home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-server-")))
            server = self._stack.enter_context(running_server(major, home))
            proxy = self._stack.enter_context(FaultProxy(upstream=server.url))
            station = self._stations[major] = Station(server, proxy)
            self._stack.callback(lambda: station.host.close())
        return self._stations[major]

    def report(self) -> int:
        """The end of it all; the exit status."""
        print(f"rounds: {self.rounds}")
        print(f"faults injected: {sum(self.injected.values())}")
        for name, count in sorted(self.injected.items()):
            print(f"  {count:5} {name}")
        print(f"violations: {len(self.violations)}")
        for words in self.violations:
            print(f"  {words.splitlines()[0][:240]}")
        return 1 if self.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--rounds", type=int, help="how many seeded rounds (default: 20, or as many as --seconds allow)"
    )
    parser.add_argument("--seed", type=int, help="of the first round; the next one's is one more (default: any)")
    parser.add_argument("--major", choices=("2", "3", "both"), default="both", help="of Prefect; both is in turn")
    parser.add_argument("--seconds", type=float, help="begin no round after that")
    parser.add_argument(
        "--steps", action="store_true", help="a kill at every step of a run; with --rounds in turn with these"
    )
    parser.add_argument("--only", metavar="STEP", help="with --steps: those whose name begins so, as quick:write:3")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave as by Ctrl-C, with nothing left running
    majors = (2, 3) if args.major == "both" else (int(args.major),)
    with Chaos(seconds=args.seconds) as chaos:
        steps = Steps(chaos=chaos, majors=majors, only=args.only).play() if args.steps else iter(())
        rounds = _rounds(chaos, args, majors)
        # In turn, so that a time that is too short for all of either has its share of both.
        try:
            for _ in zip_longest(steps, rounds):
                pass
        except (KeyboardInterrupt, SystemExit):
            print("told to end")
            return chaos.report() or 130
        return chaos.report()


def _rounds(chaos: Chaos, args: argparse.Namespace, majors: tuple[int, ...]) -> Iterator[None]:
    """Play the seeded rounds, one each time the next is asked for."""
    default = 0 if args.steps else 10**9 if args.seconds else 20
    first = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    for seed in range(first, first + (default if args.rounds is None else args.rounds)):
        if chaos.time_is_up():
            return
        major = majors[seed % len(majors)]
        repeat = f"python tests/chaos/chaos.py --seed {seed} --rounds 1 --major {major}"
        chaos.play(make_plan(seed, major), repeat=repeat)
        yield


if __name__ == "__main__":
    sys.exit(main())
