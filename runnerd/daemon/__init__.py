"""The daemon: building its parts, its life from start to stop, and ways to start it."""
