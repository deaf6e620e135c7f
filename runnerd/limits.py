"""Who may start now: pure functions over the offers, what runs here, and the limits.

Invariants: a full limit skips the runs it concerns and never the ones behind them; slots are counted from what
is live, never from a counter that could leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from runnerd.model import FlowRun, LatePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A run as the limits see it."""

    run_id: str
    deployment_id: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The limits in force: of the host, by tag, and by deployment id."""

    runs: int
    tags: Mapping[str, int] = field(default_factory=dict)
    deployments: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may start, in the order offered, and why the others may not (by run id)."""

    admitted: tuple[str, ...]
    skipped: Mapping[str, str]


def admit(offers: Iterable[Claimant], live: Iterable[Claimant], caps: Caps) -> Admission:
    """Admit offers in order while their limits have room."""
    running = list(live)
    total = len(running)
    by_deployment = Counter(run.deployment_id for run in running if run.deployment_id)
    by_tag = Counter(tag for run in running for tag in set(run.tags))
    admitted: list[str] = []
    skipped: dict[str, str] = {}
    for offer in offers:
        full = _full(offer, total, by_deployment, by_tag, caps)
        if full is not None:
            skipped[offer.run_id] = full
            continue
        admitted.append(offer.run_id)
        total += 1
        by_tag.update(set(offer.tags))
        if offer.deployment_id:
            by_deployment[offer.deployment_id] += 1
    return Admission(admitted=tuple(admitted), skipped=skipped)


def _full(
    offer: Claimant, total: int, by_deployment: Mapping[str, int], by_tag: Mapping[str, int], caps: Caps
) -> str | None:
    """The limit that keeps this offer out, in words; None when none does."""
    if total >= caps.runs:
        return f"limits.runs {caps.runs} is reached"
    deployment = offer.deployment_id or ""
    if deployment in caps.deployments and by_deployment.get(deployment, 0) >= caps.deployments[deployment]:
        return f"the deployment's limit {caps.deployments[deployment]} is reached"
    for tag in offer.tags:
        if tag in caps.tags and by_tag.get(tag, 0) >= caps.tags[tag]:
            return f"limits.tags {tag} {caps.tags[tag]} is reached"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """The offers to keep, those among them that are late as well, and those late.policy says to let go."""

    keep: tuple[FlowRun, ...]
    drop: tuple[FlowRun, ...]
    spared: tuple[FlowRun, ...] = ()


_NOT_BEGUN = ("Scheduled", "Late")  # retries, resumed and rescheduled runs have other names: those are wanted


def judge_late(
    offers: Sequence[FlowRun], *, now: datetime, after_s: float, policy: LatePolicy, in_time: Collection[str] = ()
) -> Lateness:
    """Apply late.policy. Only what a schedule made and nobody has begun can be late; what was asked for is always run.

    `skip` lets go of every run that fell due more than `after_s` ago, but for those that were on offer `in_time`;
    `latest` keeps the newest of each deployment's.
    """
    if policy == "run":
        return Lateness(keep=tuple(offers), drop=())
    limit = now - timedelta(seconds=after_s)
    late = [
        run
        for run in offers
        if run.auto_scheduled and run.state.name in _NOT_BEGUN and run.id not in in_time and (due(run) or now) < limit
    ]
    spared: set[str] = set()
    if policy == "latest":
        newest: dict[str | None, FlowRun] = {}
        for run in late:
            rival = newest.get(run.deployment_id)
            if rival is None or (due(run) or now) > (due(rival) or now):
                newest[run.deployment_id] = run
        spared = {run.id for run in newest.values()}
    gone = {run.id for run in late} - spared
    return Lateness(
        keep=tuple(run for run in offers if run.id not in gone),
        drop=tuple(run for run in offers if run.id in gone),
        spared=tuple(run for run in late if run.id in spared),
    )


def due(run: FlowRun) -> datetime | None:
    """When the run is to start."""
    return run.next_scheduled_start_time or run.expected_start_time
