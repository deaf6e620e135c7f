"""Three small flows that run under Prefect 2 and Prefect 3."""

import socket
import time

from prefect import flow, task


@flow(log_prints=True)
def heartbeat() -> str:
    """Say that this host is alive."""
    print(f"{socket.gethostname()} is alive")
    return "alive"


@task
def count(row: int) -> int:
    return row * row


@flow(log_prints=True)
def report(region: str = "eu", rows: int = 5) -> int:
    """Add up a few rows."""
    total = sum(count(row) for row in range(rows))
    print(f"{region}: {rows} rows, total {total}")
    return total


@flow(log_prints=True)
def nap(seconds: float = 600) -> None:
    """Sleep, so that there is something to cancel."""
    print(f"sleeping for {seconds} seconds")
    time.sleep(seconds)
