"""The runs' cgroups, their limits, and whether the kernel's OOM killer ended a run."""
