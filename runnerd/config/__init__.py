"""The configuration directory, read and checked."""

from runnerd.config.envfile import parse_environment_file

__all__ = ["parse_environment_file"]
