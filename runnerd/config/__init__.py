"""The configuration directory: read, checked against its schema and this host, and merged into one Config.

`load` is for the daemon, `check` for a person who wants to know what is wrong, `document` shows what is in force.
"""

from runnerd.config.environment_file import parse_environment_file
from runnerd.config.load import HostDefaults, check, load
from runnerd.config.schema import schema_text
from runnerd.config.show import document

__all__ = ["HostDefaults", "check", "document", "load", "parse_environment_file", "schema_text"]
