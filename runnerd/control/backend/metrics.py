"""Numbers in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gauge(name: str, help_text: str, label: str | None, values: Mapping[Any, float]) -> list[str]:
    """One metric in Prometheus' text format."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
    for key, value in values.items():
        labels = f'{{{label}="{_escaped(str(key))}"}}' if label else ""
        lines.append(f"{name}{labels} {value}")
    return lines


def _escaped(value: str) -> str:
    """A label's value as that format wants it: a pool may be called anything."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
