"""The handlers of the control API, one file a resource; table.py has every path with its handler and its access."""
