"""Draws bars with whiskers as an SVG that is read in light and in dark. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.bench.rows import COLD, CONTENDERS, FLOOR, SERVE, WARM, WORKER

WIDTH, LEFT, RIGHT = 800, 160, 680
BAR, STEP, HEAD, GAP, TOP = 12, 18, 26, 14, 62
LIGHT = {WARM: "#bc4c00", COLD: "#0969da", SERVE: "#1a7f37", WORKER: "#6e7781", FLOOR: "#d0d7de"}
DARK = {WARM: "#f0883e", COLD: "#58a6ff", SERVE: "#3fb950", WORKER: "#8b949e", FLOOR: "#484f58"}
STYLE = """\
    .ground {{ fill: #ffffff; }}
    text {{ font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #24292f; }}
    .title {{ font-size: 15px; font-weight: 600; }}
    .head {{ font-size: 13px; font-weight: 600; }}
    .who {{ text-anchor: end; fill: #57606a; }}
    .note {{ fill: #57606a; }}
    .axis {{ stroke: #57606a; stroke-width: 1; }}
    .whisker {{ stroke: #24292f; stroke-width: 1; }}
    .target {{ stroke: #cf222e; stroke-width: 2; }}
{light}
    @media (prefers-color-scheme: dark) {{
      .ground {{ fill: #0d1117; }}
      text {{ fill: #e6edf3; }}
      .who, .note {{ fill: #9aa5b1; }}
      .axis {{ stroke: #9aa5b1; }}
      .whisker {{ stroke: #e6edf3; }}
      .target {{ stroke: #ff7b72; }}
{dark}
    }}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure; `label` is what stands beside it, `target` a mark on its line."""

    who: str
    value: float
    low: float
    high: float
    label: str
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of one row, on a scale of their own that begins at zero."""

    title: str
    bars: tuple[Bar, ...]

    @property
    def most(self) -> float:
        """The value at the right end of the scale; a bar that is far longer than its target does not hide it."""
        return max([0.0, *(max(bar.high, bar.value, bar.target or 0.0) for bar in self.bars)]) or 1.0

    @property
    def height(self) -> int:
        return HEAD + STEP * len(self.bars) + GAP


def draw(title: str, note: str, panels: Sequence[Panel]) -> str:
    """The whole picture; `note` stands below its title."""
    height = TOP + sum(panel.height for panel in panels)
    style = STYLE.format(light=_colours(LIGHT, "    "), dark=_colours(DARK, "      "))
    words = "; ".join(f"{panel.title}: {_described(panel)}" for panel in panels)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="desc">{escape(words)}</desc>',
        f"  <style>\n{style}  </style>",
        f'  <rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        f'  <text class="title" x="20" y="26">{escape(title)}</text>',
        f'  <text class="note" x="20" y="44">{escape(note)}</text>',
    ]
    top = TOP
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    return "\n".join([*lines, "</svg>", ""])


def _colours(colours: dict[str, str], indent: str) -> str:
    return "\n".join(f"{indent}.{who} {{ fill: {colour}; }}" for who, colour in colours.items())


def _described(panel: Panel) -> str:
    return ", ".join(f"{CONTENDERS[bar.who]} {bar.label}" for bar in panel.bars)


def _panel(panel: Panel, top: int) -> list[str]:
    scale = (RIGHT - LEFT) / panel.most
    begin, end = top + HEAD - 4, top + HEAD + STEP * len(panel.bars)
    lines = [
        f'  <text class="head" x="20" y="{top + 14}">{escape(panel.title)}</text>',
        f'  <line class="axis" x1="{LEFT}" y1="{begin}" x2="{LEFT}" y2="{end}"/>',
    ]
    for number, bar in enumerate(panel.bars):
        lines += _bar(bar, top + HEAD + STEP * number, scale)
    return lines


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    def at(value: float) -> str:
        return f"{LEFT + max(0.0, value) * scale:.1f}"

    middle, width = y + BAR / 2, max(1.0, max(0.0, bar.value) * scale)
    right = max(bar.high, bar.value, bar.target or 0.0)
    lines = [
        f'  <text class="who" x="{LEFT - 8}" y="{y + 10}">{escape(CONTENDERS[bar.who])}</text>',
        f'  <rect class="{bar.who}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"/>',
        f'  <line class="whisker" x1="{at(bar.low)}" y1="{middle}" x2="{at(bar.high)}" y2="{middle}"/>',
    ]
    if bar.target is not None:
        x = at(bar.target)
        lines.append(f'  <line class="target" x1="{x}" y1="{y - 2}" x2="{x}" y2="{y + BAR + 2}"/>')
    return [*lines, f'  <text x="{float(at(right)) + 8:.1f}" y="{y + 10}">{escape(bar.label)}</text>']
