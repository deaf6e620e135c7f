"""What surrounds the daemon: systemd, the watchdog, paths and directories, usage of processes, regular files."""
