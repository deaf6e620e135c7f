"""Installs and supervises Prefect workers, for pools of types that runnerd does not run itself."""
