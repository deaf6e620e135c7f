"""Collects what an administrator has to fix from the parts of the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runnerd.core.place import Problem

Report = Callable[[], Iterable[Problem]]


class Problems:
    """Collects the problems of all parts; each part registers what it reports when it is built."""

    def __init__(self) -> None:
        self._reports: list[Report] = []

    def register(self, report: Report) -> None:
        """Call `report` whenever the problems are listed."""
        self._reports.append(report)

    def register_text(self, text: Callable[[], str | None]) -> None:
        """Register a part that has at most one problem, without a place."""
        self.register(lambda: [Problem(message=words)] if (words := text()) else [])

    def all(self) -> list[Problem]:
        """List the problems of all parts, those with a place in a file first."""
        found = [problem for report in self._reports for problem in report()]
        return sorted(found, key=lambda problem: problem.place is None)
