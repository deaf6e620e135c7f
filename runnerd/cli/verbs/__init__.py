"""The verbs of runnerctl, one module each."""
