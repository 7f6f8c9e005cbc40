"""Bars as SVG, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

LABEL, WIDTH, RIGHT = 190, 480, 70
TOP, BAR, GAP = 52, 11, 7
INK, GRID, COLORS = "#333333", "#dddddd", ("#2266bb", "#dd8833", "#888888")


@dataclass(frozen=True)
class Series:
    """One colour of bars: a value for each label, None where there is none."""

    name: str
    values: Sequence[float | None]


def _marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def bars(title: str, labels: Sequence[str], series: Sequence[Series], origin: float = 1.0) -> str:
    """A document with a group of bars for each label, which start at `origin`."""
    finite = [v for s in series for v in s.values if v is not None and math.isfinite(v) and v > 0]
    low, high = min([*finite, origin]) / 1.3, max([*finite, origin]) * 1.3
    group = BAR * len(series) + GAP
    bottom = TOP + group * len(labels)

    def x_of(value: float) -> float:
        return LABEL + WIDTH * math.log(value / low) / math.log(high / low)

    def text(x: float, y: float, words: str, anchor: str, color: str = INK) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'

    def line(x: float, color: str) -> str:
        return f'<path d="M{x:.1f} {TOP - 4}V{bottom}" stroke="{color}"/>'

    body = [text(8, 20, title, "start")]
    place = float(LABEL)
    for s, color in zip(series, COLORS, strict=False):
        body.append(text(place, 40, s.name, "start", color))
        place += 20 + 7 * len(s.name)
    for mark in _marks(low, high):
        body += [line(x_of(mark), GRID), text(x_of(mark), bottom + 16, f"{mark:g}", "middle")]
    for i, label in enumerate(labels):
        y = TOP + group * i
        body.append(text(LABEL - 8, y + group / 2 + 2, label, "end"))
        for k, (s, color) in enumerate(zip(series, COLORS, strict=False)):
            value = s.values[i]
            if value is None or not (math.isfinite(value) and value > 0):
                continue
            left, right = sorted((x_of(origin), x_of(value)))
            where = f'x="{left:.1f}" y="{y + BAR * k}" width="{max(1.0, right - left):.1f}" height="{BAR - 1}"'
            body.append(f'<rect {where} fill="{color}"/>')
            body.append(text(right + 4, y + BAR * (k + 1) - 2, f"{value:.2g}", "start", color))
    body.append(line(x_of(origin), INK))
    width, height = LABEL + WIDTH + RIGHT, bottom + 28
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"]) + "\n"
