"""Throw-away machines with systemd as process 1."""
