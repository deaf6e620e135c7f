"""The spawner: the small program that is the parent of every flow run, and the daemon's client to it.

The program is `__main__` and what it imports: standard library only, no dataclasses and no typing at run time,
because it stays in memory for as long as the host is up. `protocol` and `client` are the daemon's side.
"""
