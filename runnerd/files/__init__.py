"""Reads files that others own or may replace: regular ones only, bounded, and never in the event loop."""
