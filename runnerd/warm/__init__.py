"""Warm interpreters: which there are, which run is forked from which, and when they go; the daemon's side."""
