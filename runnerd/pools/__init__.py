"""Work pools that this host serves: as Prefect's process worker, as its agent, and through its other workers."""
