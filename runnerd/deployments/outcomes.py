"""Notes in registry, journal and log what became of each deployment that was to be registered."""

from __future__ import annotations

from dataclasses import replace

from runnerd.core.place import Problem
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.parameters import find_unknown_parameters
from runnerd.deployments.planning import differs
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal, Registration
from runnerd.log.alerts import Alert
from runnerd.log.log import Log


class Outcomes:
    """Notes them; of a deployment that a reload has removed meanwhile, nothing."""

    def __init__(self, *, registry: Registry, journal: Journal, log: Log) -> None:
        self._registry = registry
        self._journal = journal
        self._log = log

    def note_registered(
        self,
        deployment: Deployment,
        known: Registration,
        inspection: Inspection,
        *,
        paused: bool | None,
        flaws: tuple[Problem, ...] = (),
    ) -> bool:
        """Note that the API has the deployment as wanted; return whether its flow had another name before."""
        entry = self._registry.get(key_of(deployment))
        if entry is None:
            return False
        flaws = (*find_unknown_parameters(entry.deployment, inspection), *flaws)
        for flaw in flaws if flaws != entry.flaws else ():
            event = "a deployment has a parameter that its flow lacks"
            if flaw.key == "triggers":
                event = "a deployment has no automations for its triggers"
            self._log.warning(event, deployment=deployment.name, at=flaw.place, why=flaw.message)
        self._registry.put(
            replace(
                entry,
                flaws=flaws,
                flow=inspection.flow_name,
                prefect_version=inspection.prefect_version or None,
                deployment_id=known.deployment_id,
                paused=entry.paused if paused is None else paused,
                problem=entry.deployment.problem,
                double=False,
            )
        )
        renamed = entry.flow not in (None, inspection.flow_name)
        if renamed or differs(known.deployment, deployment) or known.deployment.place != deployment.place:
            # Of several registrations of one declaration, the next start takes the one that was saved last.
            self._journal.save_registration(replace(known, deployment=deployment))
        return renamed

    def note_flow(self, deployment: Deployment, flow: str) -> None:
        """Note the name of the flow of a deployment that is about to be registered for the first time."""
        entry = self._registry.get(key_of(deployment))
        if entry is not None and entry.deployment_id is None:
            self._registry.put(replace(entry, flow=flow))

    def note_failure(self, deployment: Deployment, why: str, *, double: bool) -> None:
        """Log, once, and note why the deployment cannot be registered; an earlier registration stays in use."""
        entry = self._registry.get(key_of(deployment))
        if entry is None:
            return
        if entry.problem != why:
            where = {"deployment": deployment.name, "at": deployment.place}
            self._log.warning("cannot register a deployment", **where, why=why, alert=Alert.REGISTER_FAILED)
        self._registry.put(replace(entry, problem=why, double=double))

    def problems(self) -> tuple[Problem, ...]:
        """Return why deployments cannot be registered. Problems of their files are reported by the configuration."""
        return tuple(
            Problem(message=entry.problem, place=entry.deployment.place, deployment=entry.deployment.name)
            for entry in self._registry.entries()
            if entry.problem is not None and not entry.invalid
        )

    def flaws(self) -> tuple[Problem, ...]:
        """Return what is wrong with deployments that are registered all the same."""
        return tuple(flaw for entry in self._registry.entries() for flaw in entry.flaws)
