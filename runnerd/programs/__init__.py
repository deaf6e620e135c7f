"""Holds programs that run under other interpreters; runnerd reads their text, and no module imports them."""
