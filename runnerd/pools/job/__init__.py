"""From a pool's base job template and job variables to one process."""
