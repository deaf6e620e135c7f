"""systemd, the watchdog, the daemon's directories and paths, and what processes use."""
