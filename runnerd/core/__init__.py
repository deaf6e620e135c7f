"""Values and decisions: no I/O, and no import of anything but the standard library and itself."""
