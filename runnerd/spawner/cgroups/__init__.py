"""The cgroup tree of runs, their limits, and out-of-memory ends."""
