"""Notices: commands and HTTP posts about the ends of runs, journalled, and repeated until they are sent."""
