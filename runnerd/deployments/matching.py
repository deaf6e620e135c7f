"""Matches the declarations of a new configuration with those of the last one, or with registrations of the journal.

Pure. A declaration that moved to another file unchanged, or whose environment or directory was edited in its file, is
still the same one: its runs go on being polled for while its code is inspected again. Each old declaration is matched
once at most, so that of two declarations with one entrypoint and one name neither takes the other's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runnerd.core.settings import DeclaredKey, Deployment, key_of


def match_declarations(wanted: Iterable[Deployment], known: Iterable[Deployment]) -> dict[DeclaredKey, DeclaredKey]:
    """Return for each wanted declaration that is a known one, perhaps edited, the key of the known one."""
    left = {key_of(old): old for old in known}
    new = {key_of(one): one for one in wanted}
    found: dict[DeclaredKey, DeclaredKey] = {}
    for is_same in _STEPS:
        for key, deployment in new.items():
            if key in found:
                continue
            match = next((old_key for old_key, old in left.items() if is_same(deployment, old)), None)
            if match is not None:
                found[key] = match
                del left[match]
    return found


def _same_key(one: Deployment, other: Deployment) -> bool:
    return key_of(one) == key_of(other)


def _same_entry(one: Deployment, other: Deployment) -> bool:
    """Whether the entry of one file was edited: its interpreter, directory or environment."""
    return one.place.file == other.place.file and _code_of(one) == _code_of(other)


def _code_of(deployment: Deployment) -> tuple[str, str, str | None]:
    return (deployment.entrypoint, deployment.name, deployment.flow_name)


_STEPS: tuple[Callable[[Deployment, Deployment], bool], ...] = (_same_key, _same_entry)
