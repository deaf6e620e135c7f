"""The daemon's side of the spawner: the client, the link that is kept, long-lived processes and helpers."""
