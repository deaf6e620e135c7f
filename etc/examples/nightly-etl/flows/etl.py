"""The code in /opt/etl; it runs under Prefect 2.20 and 3."""

from prefect import flow, task


@task(retries=2, retry_delay_seconds=10)
def extract(region: str) -> list[int]:
    return [len(region), 3, 4]


@task
def load(region: str, rows: list[int]) -> int:
    print(f"{region}: {len(rows)} rows")
    return sum(rows)


@flow(log_prints=True)
def nightly(region: str = "eu") -> int:
    """Load one region."""
    return load(region, extract(region))
