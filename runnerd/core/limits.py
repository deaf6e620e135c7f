"""Who may start now: pure functions over the offers, what runs here, and the limits.

Invariants: a full limit skips the runs it concerns and never the ones behind them; slots are counted from what
is live, never from a counter that could leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A run as the limits see it."""

    run_id: str
    deployment_id: str | None
    tags: tuple[str, ...]
    pool: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCaps:
    """What a work pool allows here: over all its runs, over those of any one deployment, and by queue."""

    runs: int | None = None
    each_deployment: int | None = None
    queues: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The limits in force: of the host, by tag, by deployment id, and by work pool."""

    runs: int
    tags: Mapping[str, int] = field(default_factory=dict)
    deployments: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, PoolCaps] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may start, in the order offered, and why the others may not (by run id).

    `full`: the host has no room for any other; `full_pools`: these have none.
    """

    admitted: tuple[str, ...]
    skipped: Mapping[str, str]
    full: bool = False
    full_pools: frozenset[str] = frozenset()


class _Taken:
    """What is used of every limit."""

    def __init__(self, live: Iterable[Claimant]) -> None:
        self.runs = 0
        self.deployments: Counter[str | None] = Counter()
        self.tags: Counter[str] = Counter()
        self.pools: Counter[str | None] = Counter()
        self.queues: Counter[tuple[str | None, str | None]] = Counter()
        for run in live:
            self.add(run)

    def add(self, run: Claimant) -> None:
        self.runs += 1
        self.deployments[run.deployment_id] += 1
        self.tags.update(set(run.tags))
        self.pools[run.pool] += 1
        self.queues[(run.pool, run.queue)] += 1


def admit(offers: Iterable[Claimant], live: Iterable[Claimant], caps: Caps) -> Admission:
    """Admit offers in order while their limits have room."""
    taken = _Taken(live)
    admitted: list[str] = []
    skipped: dict[str, str] = {}
    for offer in offers:
        reached = _reached(offer, taken, caps)
        if reached is not None:
            skipped[offer.run_id] = reached
            continue
        admitted.append(offer.run_id)
        taken.add(offer)
    full_pools = frozenset(name for name, pool in caps.pools.items() if _is_full(taken.pools[name], pool))
    full = taken.runs >= caps.runs
    return Admission(admitted=tuple(admitted), skipped=skipped, full=full, full_pools=full_pools)


def _is_full(used: int, pool: PoolCaps) -> bool:
    return pool.runs is not None and used >= pool.runs


def _reached(offer: Claimant, taken: _Taken, caps: Caps) -> str | None:
    """The limit that keeps this offer out, in words; None when none does."""
    if taken.runs >= caps.runs:
        return f"limits.runs {caps.runs} is reached"
    most = caps.deployments.get(offer.deployment_id or "")
    if most is not None and taken.deployments[offer.deployment_id] >= most:
        return f"the deployment's limit {most} is reached"
    for tag in offer.tags:
        if tag in caps.tags and taken.tags[tag] >= caps.tags[tag]:
            return f"limits.tags {tag} {caps.tags[tag]} is reached"
    pool = caps.pools.get(offer.pool or "")
    return _reached_in_pool(offer, taken, pool) if pool is not None else None


def _reached_in_pool(offer: Claimant, taken: _Taken, caps: PoolCaps) -> str | None:
    if _is_full(taken.pools[offer.pool], caps):
        return f"pool {offer.pool}'s limit {caps.runs} is reached"
    most = caps.queues.get(offer.queue or "")
    if most is not None and taken.queues[(offer.pool, offer.queue)] >= most:
        return f"queue {offer.queue}'s concurrency limit {most} is reached"
    if caps.each_deployment is not None and taken.deployments[offer.deployment_id] >= caps.each_deployment:
        return f"pool {offer.pool}'s run.limit {caps.each_deployment} is reached"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket for limits.start_rate: `rate` tokens a second, at most one second's worth saved up."""

    rate: float
    tokens: float
    at: float  # monotonic seconds

    @property
    def depth(self) -> float:
        return max(1.0, self.rate)

    def refill(self, now: float) -> Bucket:
        """The bucket at `now`; a clock that stands still or goes back adds nothing."""
        gained = max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.depth, self.tokens + gained), at=max(now, self.at))

    def take(self, now: float) -> Bucket | None:
        """The bucket without one token; None when there is none to take."""
        full = self.refill(now)
        return replace(full, tokens=full.tokens - 1.0) if full.tokens >= 1.0 else None

    def wait_s(self, now: float) -> float:
        """Seconds until a token is there."""
        return max(0.0, (1.0 - self.refill(now).tokens) / self.rate)
