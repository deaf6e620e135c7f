"""The daemon: the composition root, its life from start to stop, and what surrounds it."""
