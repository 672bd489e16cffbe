"""Curves as an SVG that needs nothing but a browser: small multiples over one axis of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, GAP, LEFT, RIGHT, TOP = 760, 96, 34, 64, 16, 64
"""Pixels: the picture, the height of a panel, between panels, and the margins."""

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}"
    ".grid{stroke:#ddd;stroke-width:1}.line{fill:none;stroke:#1f6fb2;stroke-width:1.4}"
    ".name{font-weight:600}.small{font-size:11px;fill:#666}"
)


@dataclass(frozen=True)
class Panel:
    """One curve."""

    title: str
    unit: str
    values: list[float]


def small_multiples(title: str, axis: str, times: list[float], panels: list[Panel]) -> str:
    """The panels below one another, each from zero to a round number above its largest value."""
    height = TOP + len(panels) * (PANEL + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        parts.append(draw_panel(panel, times, TOP + index * (PANEL + GAP)))
    bottom = TOP + len(panels) * (PANEL + GAP) - GAP + 16
    last = times[-1]
    for step in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / 4
        label = f"{last * step / 4:.3g}"
        parts.append(f'<text class="small" x="{x:.0f}" y="{bottom}" text-anchor="middle">{label}</text>')
    parts.append(f'<text class="small" x="{WIDTH - RIGHT}" y="{bottom + 16}" text-anchor="end">{escape(axis)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def draw_panel(panel: Panel, times: list[float], top: int) -> str:
    """One curve with its scale."""
    ceiling = round_up(max(panel.values))
    width = WIDTH - LEFT - RIGHT

    def point(time: float, value: float) -> str:
        x = LEFT + width * time / times[-1]
        y = top + PANEL * (1 - value / ceiling)
        return f"{x:.1f},{y:.1f}"

    points = " ".join(map(point, times, panel.values))
    name = f"{panel.title} ({panel.unit})" if panel.unit else panel.title
    parts = [f'<text class="name" x="{LEFT}" y="{top - 8}">{escape(name)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(f'<text class="small" x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{ceiling * share:g}</text>')
    parts.append(f'<polyline class="line" points="{points}"/>')
    return "\n".join(parts)


def round_up(value: float) -> float:
    """The next number of the form 1, 2, 4, 5 or 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= value)
