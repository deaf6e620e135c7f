"""Deployments of conf.d: inspecting, registering with the API, refreshing, and launch specs of their runs."""
