"""Say which variables of an environment an interpreter reads once, at its start or while it imports.

A run that is forked gets a whole environment of its own, but these have had their effect by then: a run is forked only
of an interpreter that has the same ones. The daemon makes the interpreter's environment of them, and of no others: what
else a deployment sets may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping

# What Prefect 2.20 and 3.9, the libraries that they import, and the C library read before a flow starts.
_NAMES = frozenset(
    {
        "CI",
        "COLUMNS",
        "DO_NOT_TRACK",
        "FORCE_COLOR",
        "HOME",  # of ~/.prefect, and of the user's site-packages
        "LANG",
        "LANGUAGE",
        "LINES",
        "NO_COLOR",
        "PREFECT_EXTRA_ENTRYPOINTS",  # modules that Prefect 2 imports
        "PREFECT_HOME",
        "PREFECT_PROFILES_PATH",
        "PREFECT_TEST_MODE",
        "PREFECT_UNIT_TEST_MODE",
        "SSLKEYLOGFILE",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TZ",
        "VIRTUAL_ENV",
        "prometheus_multiproc_dir",
    }
)
_PREFIXES = (
    "COOLNAME_",
    "FSSPEC_",
    "GLIBC_",
    "GRIFFE_",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "OTEL_",
    "PENDULUM_",
    "PREFECT_EXPERIMENTAL_",
    "PREFECT_TESTING_",
    "PROMETHEUS_",
    "PYDANTIC_",
    "PYTHON",
    "PYTZDATA_",
    "TTY_",
    "WEBSOCKETS_",
)


def fixed_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment that a fork cannot change any more."""
    return {name: value for name, value in environment.items() if name in _NAMES or name.startswith(_PREFIXES)}
