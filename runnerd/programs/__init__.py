"""Programs that run under other interpreters; their text is read, and no module of runnerd imports them."""
