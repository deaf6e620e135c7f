"""Puts the deployments of a configuration into the registry: which are new, edited, unchanged or gone.

Invariant: nothing is asked of the API and no flow is inspected; that is the registrar's part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from runnerd.core.settings import Config, Deployment, key_of
from runnerd.deployments.matching import match_declarations
from runnerd.deployments.registry import Entry, Key, Registry
from runnerd.journal.journal import Journal, Registration


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChanges:
    """Names of the deployments that a new configuration added, changed and removed, and the number unchanged."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The deployments to register, in the files' order, and the journal's registrations that belong to one of them."""

    changes: ConfigChanges
    todo: dict[Key, Deployment]
    registrations: Collection[Registration]


class Planner:
    """Compares each configuration with the registry, and at the start with the journal's registrations at `url`."""

    def __init__(self, *, journal: Journal, registry: Registry, url: str) -> None:
        self._journal = journal
        self._registry = registry
        self._url = url

    def plan(self, config: Config) -> Planned:
        """Put the deployments of `config` into the registry, and remove those that it does not have."""
        wanted = {key_of(deployment): deployment for deployment in config.deployments}
        added, changed, unchanged = [], [], 0
        old_entries = self._take_matching(config.deployments)
        registered = self._match_registrations(config.deployments)
        for key, deployment in wanted.items():
            old = old_entries.get(key)
            if old is None:
                added.append(deployment.name)
                self._put_new(deployment, registered.get(key))
            elif differs(old.deployment, deployment):
                changed.append(old.full_name)
                self._put_again(old, deployment)
            else:
                unchanged += 1
                self._put_again(old, deployment)
        removed = self._drop_unwanted(set(wanted))
        changes = ConfigChanges(added=tuple(added), changed=tuple(changed), removed=tuple(removed), unchanged=unchanged)
        return Planned(changes=changes, todo=wanted, registrations=registered.values())

    def _take_matching(self, wanted: Sequence[Deployment]) -> dict[Key, Entry]:
        """Return the present entry of each wanted declaration that has one; take edited ones out of the registry."""
        entries = {key_of(entry.deployment): entry for entry in self._registry.entries()}
        matches = match_declarations(wanted, [entry.deployment for entry in entries.values()])
        for key, old_key in matches.items():
            if key != old_key:
                self._registry.remove(old_key)
        return {key: entries[old_key] for key, old_key in matches.items()}

    def _match_registrations(self, wanted: Sequence[Deployment]) -> dict[Key, Registration]:
        """Return the journal's registration of each wanted declaration; active ones before those that were paused.

        A declaration has several when its flow was renamed and the old one is not dropped yet: of these the newest,
        which was the last one in use.
        """
        found: dict[Key, Registration] = {}
        known = self._journal.registrations(self._url)
        for paused in (False, True):
            some = {key_of(one.deployment): one for one in known if one.paused is paused}
            rest = [one for one in wanted if key_of(one) not in found]
            matches = match_declarations(rest, [one.deployment for one in some.values()])
            found |= {key: some[old_key] for key, old_key in matches.items()}
        return found

    def _put_new(self, deployment: Deployment, registered: Registration | None) -> None:
        """Add an entry, with the id it was last registered under: runs of the last daemon need their deployments."""
        entry = Entry(deployment=deployment, problem=deployment.problem, invalid=bool(deployment.problem))
        if registered is not None and not registered.paused:
            entry = replace(entry, flow=registered.flow, deployment_id=registered.deployment_id)
        self._registry.put(entry)

    def _put_again(self, old: Entry, deployment: Deployment) -> None:
        """Update an entry after a reload; an unchanged one too, because its code may have failed the last time."""
        problem = deployment.problem
        flaws = () if differs(old.deployment, deployment) else old.flaws
        entry = replace(
            old, deployment=deployment, problem=problem, flaws=flaws, invalid=problem is not None, double=False
        )
        self._registry.put(entry)

    def _drop_unwanted(self, wanted: set[Key]) -> list[str]:
        gone = [entry for entry in self._registry.entries() if key_of(entry.deployment) not in wanted]
        for entry in gone:
            self._registry.remove(key_of(entry.deployment))
        return [entry.full_name for entry in gone]


def differs(one: Deployment, other: Deployment) -> bool:
    """Whether two deployments differ in more than their place in the files and their problem."""
    return replace(one, place=other.place, problem=None) != replace(other, problem=None)
