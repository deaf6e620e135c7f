"""The spawner: the root program that starts the processes of flow runs and is their parent.

Standard library only, and no argparse, dataclasses or typing at run time: the spawner stays in memory for as long as
the host is up. The daemon's side of the spawner's socket is in runnerd/processes/.
"""
