"""Output of runs: their files, and forwarding lines of them to systemd's journal."""
