"""The child between fork and exec: account, files, limits, and why one could not be started."""
