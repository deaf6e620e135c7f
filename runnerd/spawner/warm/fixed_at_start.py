"""Say which variables of an environment an interpreter reads once, at its start or while it imports.

A run that is forked gets a whole environment of its own, but these have had their effect by then: a run is forked only
of an interpreter that has the same ones. The daemon makes the interpreter's environment of them, and of no others: what
else a deployment sets may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = frozenset(
    {
        "HOME",  # of ~/.prefect, and of the user's site-packages
        "LANG",
        "LANGUAGE",
        "NO_COLOR",
        "PREFECT_HOME",
        "PREFECT_PROFILES_PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TZ",
        "VIRTUAL_ENV",
    }
)
_PREFIXES = (
    "GLIBC_",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
)


def fixed_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment that a fork cannot change any more."""
    return {name: value for name, value in environment.items() if name in _NAMES or name.startswith(_PREFIXES)}
