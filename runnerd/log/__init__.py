"""The daemon's own log: structlog set-up, systemd's journal, alerts."""
