"""What machines are made of: the tree of a Debian, the package that `make deb` built, Prefect and its Python."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from runnerd import __version__
from tests.kits.checkout import ROOT
from tests.kits.machines.commanded import HERE
from tests.kits.machines.machine import Machine
from tests.kits.machines.own_kernel import OwnKernel

_ENV = ROOT / ".envs/prefect3"

# Prefect's environment and its Python are shown at places of the machine's own, where any user may go.
_PREPARE = """
echo /opt/python/lib >/etc/ld.so.conf.d/python.conf
ldconfig
mkdir -p /opt/prefect/bin "/opt/prefect/lib/PYTHON/site-packages"
printf 'home = /opt/python/bin\\ninclude-system-site-packages = false\\n' >/opt/prefect/pyvenv.cfg
ln -s /opt/python/bin/PYTHON /opt/prefect/bin/python
echo /opt/packages >/opt/prefect/lib/PYTHON/site-packages/packages.pth
printf '#!/bin/sh\\nexec /opt/prefect/bin/python -m prefect "$@"\\n' >/opt/prefect/bin/prefect
chmod 755 /opt/prefect/bin/prefect
"""


@cache
def package() -> Path:
    """The newest package in dist/."""
    built = sorted((ROOT / "dist").glob("runnerd_*_all.deb"), key=lambda path: path.stat().st_mtime)
    assert built, "there is no package in dist/; make deb"
    return built[-1]


def machine_of(suite: str, name: str) -> Machine:
    """A machine of this Debian, not booted yet."""
    python = _python_home()
    packages = next(_ENV.glob("lib/python3*/site-packages"))
    return Machine(
        tree=_tree(suite),
        name=name,
        binds={"/opt/python": str(python), "/opt/packages": str(packages), "/opt/dist": str(ROOT / "dist")},
        prepare=_PREPARE.replace("PYTHON", packages.parent.name),
    )


def own_kernel_of(suite: str, prepare: str) -> OwnKernel:
    """A machine of this Debian with a kernel of its own, not booted yet."""
    return OwnKernel(
        tree=_tree(suite),
        kernel=ROOT / ".envs/machines/kernel",
        name=f"kernel-{suite}",
        binds={"/opt/dist": str(package().parent)},
        prepare=prepare,
    )


def _tree(suite: str) -> Path:
    """This Debian with what the package depends on; made where it is not there yet."""
    subprocess.run([str(HERE / "trees.sh"), str(package()), suite], check=True)
    return ROOT / ".envs/machines" / suite


def _python_home() -> Path:
    """The installation that Prefect's environment was made from."""
    settings = dict(line.partition(" = ")[::2] for line in (_ENV / "pyvenv.cfg").read_text().splitlines())
    return Path(settings["home"]).parent


def repacked(deb: Path, *, version: str, into: Path) -> Path:
    """The same package with another version, as an upgrade."""
    tree = into / "tree"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    lines = [
        f"Version: {version}" if line.startswith("Version:") else line for line in control.read_text().splitlines()
    ]
    control.write_text("\n".join(lines) + "\n")
    init = tree / "usr/lib/python3/dist-packages/runnerd/__init__.py"
    init.write_text(init.read_text().replace(__version__, version))
    made = into / f"runnerd_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made)], check=True, capture_output=True)
    return made
