"""The journal: the SQLite file of runs and transitions, and the bounds of its history."""
