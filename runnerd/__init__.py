"""runnerd: a host daemon that makes a Linux machine a first-class place to run Prefect deployments."""

__version__ = "0.1.0"
