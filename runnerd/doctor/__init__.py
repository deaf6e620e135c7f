"""The doctor: checks what is wrong with this host, and says what to do about it.

The daemon runs the checks on request. `Doctor` runs all of them at once; there is one module per subject.
"""
