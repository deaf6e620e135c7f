"""Makes ScriptSettings from one entry of a `scripts:` list, or lists all flaws of the entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runnerd.config.entries import Key, Kind
from runnerd.config.host_checks import HostChecks
from runnerd.config.messages import Flaw
from runnerd.config.run_settings import HostRun, read_run
from runnerd.config.sections import Flaws
from runnerd.config.yaml_nodes import Map
from runnerd.core.place import Place, Problem
from runnerd.core.settings import Deployment, ScriptSettings


def _keys(script: ScriptSettings) -> frozenset[Key]:
    return frozenset([(script.file,)])


def _double(script: ScriptSettings, earlier: Place) -> str:
    return f"script {script.path!r} is already listed at {earlier}; remove one"


def _problem(flaw: Flaw, _name: str | None) -> Problem:
    return flaw.problem()


SCRIPTS = Kind("scripts", _keys, _double, _problem)


@dataclass(frozen=True, slots=True)
class ScriptReader:
    """Reads the scripts of a host."""

    checks: HostChecks
    host: HostRun

    def build(self, node: Map, flaws: Flaws) -> ScriptSettings | None:
        """Make the script that `node` describes; None when it has flaws, which are added to `flaws`."""
        values = read_run(node.get("run"), self.host.table, ("run",), flaws).over(self.host.said)
        run = self.host.settings(values)
        if not flaws.any_in("run", "path"):
            of_host = Flaws([])
            place = node.value_place("path")
            self.checks.check(run, values, of_host, otherwise=place, entrypoint=f"{node.get('path')}:serve")
            for flaw in of_host.all:
                message = (
                    flaw.message.replace("entrypoint ", "path ", 1) if flaw.path[-1] == "entrypoint" else flaw.message
                )
                flaws.add(flaw.path, message, flaw.place)
        if flaws.all:
            return None
        return ScriptSettings(path=node["path"], run=run, said=dict(values.values), place=node.place())


def list_served(scripts: Sequence[ScriptSettings], before: Sequence[Deployment]) -> list[Deployment]:
    """List the deployments of these scripts among those that were in force before: they stay until a script is read."""
    files = {script.file for script in scripts}
    return [deployment for deployment in before if deployment.place.file in files]
