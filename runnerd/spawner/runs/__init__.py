"""The spawner's runs: start, live, stop and end their processes, and write their records."""
