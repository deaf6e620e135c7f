"""Runs of the spawner: started, watched, stopped, ended and recorded."""
