"""A flow whose file can be read when it is looked at, and not when it is to run."""

import os

from prefect import flow

if "PREFECT__FLOW_RUN_ID" in os.environ:
    raise ImportError("on purpose")


@flow
def broken(mark: str) -> None:
    raise AssertionError("this file cannot be imported by a run")
