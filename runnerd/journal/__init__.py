"""The journal: the SQLite file of this host's runs, and the pruning of its history."""
