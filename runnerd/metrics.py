"""Numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gauge(name: str, help_text: str, label: str | None, values: Mapping[Any, float]) -> list[str]:
    """One metric in Prometheus' text format."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
    for key, value in values.items():
        labels = f'{{{label}="{key}"}}' if label else ""
        lines.append(f"{name}{labels} {value}")
    return lines
