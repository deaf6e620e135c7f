"""Reads the configuration directory, checks it against its schema and this host, and merges it into one Config.

`load` is for the daemon, `check` lists the problems of files, `describe_config` writes a Config as JSON.
"""

from runnerd.config.defaults import find_defaults
from runnerd.config.environment_file import parse_environment_file
from runnerd.config.load import HostDefaults, check, load
from runnerd.config.schema import read_schema
from runnerd.config.show import describe_config

__all__ = [
    "HostDefaults",
    "check",
    "describe_config",
    "find_defaults",
    "load",
    "parse_environment_file",
    "read_schema",
]
