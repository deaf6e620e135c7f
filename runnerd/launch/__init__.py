"""Launch specs and their parts: environments, API access, scratch directories, the launchers' contract."""
