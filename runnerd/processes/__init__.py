"""The daemon's side of the spawner: its client, the link that reconnects, long-lived processes and helper processes."""
