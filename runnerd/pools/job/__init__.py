"""Resolves a pool's base job template and the job variables of a run to one process."""
