"""Warm interpreters, and runs that are forks of these: the spawner's side."""
