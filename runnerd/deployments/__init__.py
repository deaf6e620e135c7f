"""Deployments of conf.d: inspected, registered with the API, refreshed and prepared for launch."""
