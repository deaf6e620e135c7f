"""The spawner's socket, messages, event loop, log and sd_notify."""
