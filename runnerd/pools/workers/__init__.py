"""Prefect's own workers for pools of other types: installed and supervised here."""
