"""The control API: the HTTP API of the running daemon on a Unix socket, its server, its routes and its client."""
