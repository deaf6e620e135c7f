"""runnerctl: inspects and controls a running runnerd over its control socket."""
