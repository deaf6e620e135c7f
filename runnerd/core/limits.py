"""Decides which offers may be claimed now, from the offers, the live runs and the limits. Pure.

Invariants: a full limit skips the runs it concerns and never the runs behind them (ADR 10); slots are counted from the
live runs, never from a counter that could leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Holds the properties of a run that limits depend on."""

    run_id: str
    deployment_id: str | None
    tags: tuple[str, ...]
    pool: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCaps:
    """Holds the concurrency limits of a pool on this host: of all its runs, of each deployment, and by queue name."""

    runs: int | None = None
    each_deployment: int | None = None
    queues: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Names the group that a deployment shares its limit with; `runs` is None for a member without a limit."""

    name: str
    runs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Holds the concurrency limits in force: of the host, by tag, by deployment id, and by name of the work pool.

    `cancelling`: by deployment id, the limits that cancel further runs instead of delaying them. `groups`: by
    deployment id, the limits that count the runs of all members of a group.
    """

    runs: int
    tags: Mapping[str, int] = field(default_factory=dict)
    deployments: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, PoolCaps] = field(default_factory=dict)
    cancelling: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)

    def group_of(self, run: Claimant) -> str | None:
        """Return the name of the group that the run counts in."""
        group = self.groups.get(run.deployment_id or "")
        return group.name if group is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Holds the ids of the runs to claim, in the order offered, and by run id the reason why others are skipped.

    `surplus`: the ids of the runs to cancel. `full`: the host has no slot left; `full_pools`: names of the pools that
    have no slot left on this host.
    """

    admitted: tuple[str, ...]
    skipped: Mapping[str, str]
    full: bool = False
    full_pools: frozenset[str] = frozenset()
    surplus: tuple[str, ...] = ()


class _Used:
    """Counts the slots in use of every limit."""

    def __init__(self, live: Iterable[Claimant], caps: Caps) -> None:
        self._caps = caps
        self.runs = 0
        self.groups: Counter[str | None] = Counter()
        self.deployments: Counter[str | None] = Counter()
        self.tags: Counter[str] = Counter()
        self.pools: Counter[str | None] = Counter()
        self.queues: Counter[tuple[str | None, str | None]] = Counter()
        for run in live:
            self.add(run)

    def add(self, run: Claimant) -> None:
        """Count one more run."""
        self.runs += 1
        self.deployments[run.deployment_id] += 1
        self.groups[self._caps.group_of(run)] += 1
        self.tags.update(set(run.tags))
        self.pools[run.pool] += 1
        self.queues[(run.pool, run.queue)] += 1


def admit(offers: Iterable[Claimant], live: Iterable[Claimant], caps: Caps) -> Admission:
    """Admit offers in order as long as each limit that concerns them has a slot."""
    used = _Used(live, caps)
    admitted: list[str] = []
    skipped: dict[str, str] = {}
    surplus: list[str] = []
    for offer in offers:
        most = caps.cancelling.get(offer.deployment_id or "")
        if most is not None and used.deployments[offer.deployment_id] >= most:
            surplus.append(offer.run_id)
            continue
        reached = _reached_limit(offer, used, caps)
        if reached is not None:
            skipped[offer.run_id] = reached.words
            continue
        admitted.append(offer.run_id)
        used.add(offer)
    full_pools = frozenset(name for name, pool in caps.pools.items() if _is_full(used.pools[name], pool))
    full = used.runs >= caps.runs
    return Admission(
        admitted=tuple(admitted), skipped=skipped, full=full, full_pools=full_pools, surplus=tuple(surplus)
    )


def _is_full(used: int, pool: PoolCaps) -> bool:
    return pool.runs is not None and used >= pool.runs


def find_holders(offer: Claimant, live: Sequence[Claimant], caps: Caps) -> tuple[str, ...]:
    """Return the ids of the live runs that hold the slots of the limit that keeps this offer out; empty for none."""
    reached = _reached_limit(offer, _Used(live, caps), caps)
    return () if reached is None else tuple(run.run_id for run in live if reached.counts(run))


class _Reached(NamedTuple):
    """A limit without a slot, as `runnerctl status` shows it, and which runs it counts."""

    words: str
    counts: Callable[[Claimant], bool]


def _reached_limit(offer: Claimant, used: _Used, caps: Caps) -> _Reached | None:
    """Return the limit that keeps this offer out; None when none does."""
    if used.runs >= caps.runs:
        return _Reached(f"limits.runs {caps.runs} is reached", lambda run: True)
    most = caps.deployments.get(offer.deployment_id or "")
    if most is not None and used.deployments[offer.deployment_id] >= most:
        return _Reached(f"the deployment's limit {most} is reached", _of_deployment(offer))
    group = caps.groups.get(offer.deployment_id or "")
    if group is not None and group.runs is not None and used.groups[group.name] >= group.runs:
        words = f"run.limit {group.runs} of the group {group.name} is reached"
        return _Reached(words, lambda run: caps.group_of(run) == group.name)
    for tag in offer.tags:
        if tag in caps.tags and used.tags[tag] >= caps.tags[tag]:
            words = f"limits.tags {tag} {caps.tags[tag]} is reached"
            return _Reached(words, lambda run, tag=tag: tag in run.tags)  # type: ignore[misc]
    pool = caps.pools.get(offer.pool or "")
    return _reached_pool_limit(offer, used, pool) if pool is not None else None


def _reached_pool_limit(offer: Claimant, used: _Used, caps: PoolCaps) -> _Reached | None:
    if _is_full(used.pools[offer.pool], caps):
        return _Reached(f"pool {offer.pool}'s limit {caps.runs} is reached", lambda run: run.pool == offer.pool)
    most = caps.queues.get(offer.queue or "")
    if most is not None and used.queues[(offer.pool, offer.queue)] >= most:
        place = (offer.pool, offer.queue)
        words = f"queue {offer.queue}'s concurrency limit {most} is reached"
        return _Reached(words, lambda run: (run.pool, run.queue) == place)
    if caps.each_deployment is not None and used.deployments[offer.deployment_id] >= caps.each_deployment:
        words = f"pool {offer.pool}'s run.limit {caps.each_deployment} is reached"
        return _Reached(words, _of_deployment(offer))
    return None


def _of_deployment(offer: Claimant) -> Callable[[Claimant], bool]:
    return lambda run: run.deployment_id == offer.deployment_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket for limits.start_rate: `rate` tokens a second, of which at most one second's worth is saved up."""

    rate: float
    tokens: float
    at: float  # monotonic seconds

    @classmethod
    def filled(cls, rate: float, *, at: float) -> Bucket:
        """Make a full bucket."""
        return cls(rate=rate, tokens=max(1.0, rate), at=at)

    def at_rate(self, rate: float, now: float) -> Bucket:
        """Return the bucket from `now` on at this rate; a change of the rate adds no tokens."""
        return self if rate == self.rate else Bucket(rate=rate, tokens=min(self.tokens, max(1.0, rate)), at=now)

    @property
    def depth(self) -> float:
        """The most tokens the bucket holds: one second's worth, and at least one."""
        return max(1.0, self.rate)

    def refill(self, now: float) -> Bucket:
        """Return the bucket at `now` (monotonic seconds); a clock that stands still or goes back adds no tokens."""
        gained = max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.depth, self.tokens + gained), at=max(now, self.at))

    def take(self, now: float) -> Bucket | None:
        """Return the bucket without one token; None when it has none."""
        full = self.refill(now)
        return replace(full, tokens=full.tokens - 1.0) if full.tokens >= 1.0 else None

    def wait_s(self, now: float) -> float:
        """Return the seconds until the bucket has a token."""
        return max(0.0, (1.0 - self.refill(now).tokens) / self.rate)
