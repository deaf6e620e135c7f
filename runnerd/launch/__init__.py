"""What is needed to start a run: launch specs, environments, API access, scratch directories."""
