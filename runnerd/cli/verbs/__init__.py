"""One file a command of runnerctl."""
