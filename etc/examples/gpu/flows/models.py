"""Flows that run under Prefect 2.20 and 3."""

import os
import time

from prefect import flow


@flow(log_prints=True)
def train(seconds: float = 60) -> None:
    """Use the GPU for a while."""
    print(f"training on GPU {os.environ['CUDA_VISIBLE_DEVICES']}")
    time.sleep(seconds)


@flow(log_prints=True)
def embed() -> None:
    """Use the GPU."""
    print(f"embedding on GPU {os.environ['CUDA_VISIBLE_DEVICES']}")


@flow(log_prints=True)
def report() -> None:
    """Use the processor."""
    print("no GPU needed")
