"""/proc: identities, snapshots of processes, descendants and orphans of runs."""
