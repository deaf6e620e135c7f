"""Serves work pools: as Prefect's process worker, as the agent of 2.x, and through Prefect's own workers."""
