"""Output of runs: reading the output files, and forwarding their lines to systemd's journal."""
