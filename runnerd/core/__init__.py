"""Holds values and makes decisions; does no I/O, and imports only the standard library and its own modules."""
