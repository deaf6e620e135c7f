"""A configuration directory for tests: files are written by their names, and what loading says is compared as text."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from runnerd.config import HostDefaults, load
from runnerd.core.errors import ConfigError
from runnerd.core.place import Problem
from runnerd.core.settings import Config, Deployment
from runnerd.files.bounded_calls import BoundedCalls

DEFAULTS = HostDefaults(hostname="host-1", python=sys.executable, api_url=None)
MAIN = "api: {url: http://127.0.0.1:4200/api}\n"


class ConfigDir:
    """`etc` is the directory; runnerd.yaml and flows/etl.py (with no code that anybody runs) are in it."""

    def __init__(self, etc: Path, main: str | None = MAIN) -> None:
        self.etc = etc
        (etc / "conf.d").mkdir(parents=True)
        (etc / "flows").mkdir()
        (etc / "flows" / "etl.py").write_text("def nightly(): ...\n")
        if main is not None:
            self.write("runnerd.yaml", main)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.etc / name
        if isinstance(text, str):
            text = textwrap.dedent(text).encode()
        path.write_bytes(text)
        return path

    def load(
        self, *, last_good: Config | None = None, defaults: HostDefaults = DEFAULTS, calls: BoundedCalls | None = None
    ) -> Config:
        return load(str(self.etc), defaults=defaults, last_good=last_good, calls=calls)

    def words(self, problems: tuple[Problem, ...] | list[Problem]) -> list[str]:
        """The problems as they are printed, with paths relative to the directory."""
        return [str(problem).replace(f"{self.etc}/", "") for problem in problems]

    def problems(self, **how: Config | None) -> list[str]:
        return self.words(self.load(**how).problems)  # type: ignore[arg-type]

    def fatal(self, *, defaults: HostDefaults = DEFAULTS) -> list[str]:
        """The problems of a load that must fail."""
        try:
            config = self.load(defaults=defaults)
        except ConfigError as error:
            return self.words(error.problems)
        raise AssertionError(f"loaded: {config}")

    def one(self, text: str, main: str | None = None) -> Deployment:
        """The only deployment of a drop-in that has no problem."""
        if main is not None:
            self.write("runnerd.yaml", main)
        self.write("conf.d/10-a.yaml", text)
        config = self.load()
        assert self.words(config.problems) == []
        (deployment,) = config.deployments
        return deployment


# A deployment that is right; each line of ITEMS is added to it as its line 4.
RIGHT = """\
deployments:
  - name: a
    entrypoint: flows/etl.py:nightly
"""


def prefixed(etc: ConfigDir, words: list[str]) -> list[str]:
    return [f"conf.d/a.yaml:{line.replace('{etc}', str(etc.etc))}" for line in words]


A = "deployments:\n  - {name: a, entrypoint: 'flows/etl.py:nightly', description: first}\n"
B = "deployments:\n  - {name: b, entrypoint: 'flows/etl.py:nightly'}\n"


def names(config: Config) -> list[str]:
    return [deployment.name for deployment in config.deployments]
