"""Flows of a machine that stands alone; they run under Prefect 2.20 and 3."""

import time
from pathlib import Path

from prefect import flow


@flow(log_prints=True)
def tidy(directory: str, older_than_days: float = 30) -> int:
    """Count old files; a real one would remove them."""
    limit = time.time() - older_than_days * 86400
    old = [path for path in Path(directory).iterdir() if path.is_file() and path.stat().st_mtime < limit]
    print(f"{len(old)} files in {directory} are older than {older_than_days:g} days")
    return len(old)
