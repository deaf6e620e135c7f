"""The forked child until it execs the run's program: user, files, limits, and why it could not start."""
