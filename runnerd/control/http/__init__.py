"""The HTTP/1.1 server of the control API: accepts connections, reads requests, routes them, sends answers."""
