"""Makes drop-ins of what runs flows on a host without runnerd, for `runnerctl import`."""
