"""HTTP/1.1 on the control sockets: reading requests, routing them, writing answers."""
