"""Applies late.policy to a list of due runs. Pure.

Invariant: only a run that a schedule made and no host has begun can be late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runnerd.core.prefect import FlowRun, due
from runnerd.core.settings import LatePolicy

_NOT_BEGUN = ("Scheduled", "Late")  # retries, resumed and rescheduled runs have other names: those are wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """The runs to keep on offer, the runs to skip, and those to keep that are late as well (`spared`)."""

    keep: tuple[FlowRun, ...]
    drop: tuple[FlowRun, ...]
    spared: tuple[FlowRun, ...] = ()


def past_time(offers: Iterable[FlowRun], *, now: datetime, after_s: float) -> list[FlowRun]:
    """Return the runs that a schedule made, no host has begun, and that fell due more than `after_s` seconds ago."""
    limit = now - timedelta(seconds=after_s)
    return [run for run in offers if run.auto_scheduled and run.state.name in _NOT_BEGUN and (due(run) or now) < limit]


def judge_late(
    offers: Sequence[FlowRun], *, now: datetime, after_s: float, policy: LatePolicy, in_time: Collection[str] = ()
) -> Lateness:
    """Apply late.policy to these runs.

    `skip` drops every run that fell due more than `after_s` seconds ago, except those that were on offer `in_time`;
    `latest` spares the newest of them of each deployment; `run` drops none.
    """
    if policy == "run":
        return Lateness(keep=tuple(offers), drop=())
    late = [run for run in past_time(offers, now=now, after_s=after_s) if run.id not in in_time]
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
