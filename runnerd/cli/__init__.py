"""runnerctl: asks a running runnerd over its control socket; a file a verb."""
