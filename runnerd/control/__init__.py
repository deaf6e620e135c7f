"""The control API: what one may ask a running daemon over its Unix socket."""
