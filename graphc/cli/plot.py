"""Loss and accuracy curves as a file: SVG written here; PNG through Pillow, which is slow to load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import click

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 64, 44, 48
INK, GRID = "#333333", "#dddddd"
RADIUS = 2.5


@dataclass(frozen=True)
class Curve:
    """A line of the plot: `values[i]` belongs to epoch `i + 1`; `side` ("left", "right") is the axis it is read on."""

    label: str
    values: Sequence[float]
    color: str
    side: str


@dataclass(frozen=True)
class Line:
    """A straight or broken line through `points`."""

    points: tuple[tuple[float, float], ...]
    color: str
    width: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A filled circle around a value, which is all there is to see of a curve of one epoch."""

    x: float
    y: float
    color: str


@dataclass(frozen=True)
class Text:
    """A piece of text at (x, y); `anchor` is "start", "middle" or "end"."""

    x: float
    y: float
    text: str
    anchor: str
    color: str = INK


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low if math.isfinite(low) else 0.0]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def draw(title: str, curves: Sequence[Curve]) -> list[Line | Dot | Text]:
    """The marks of the plot, for either file format. Each side has its own scale; epochs run along x."""
    epochs = max((len(c.values) for c in curves), default=0)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    marks: list[Line | Dot | Text] = [Text(WIDTH / 2, 24, title, "middle")]

    def x_of(epoch: float) -> float:
        return LEFT + plot_width * ((epoch - 1) / (epochs - 1) if epochs > 1 else 0.5)

    for epoch in _epoch_labels(epochs):
        marks.append(Text(x_of(epoch), HEIGHT - BOTTOM + 18, str(epoch), "middle"))
    marks.append(Text(LEFT + plot_width / 2, HEIGHT - 10, "epoch", "middle"))
    place = LEFT + 12
    for side in ("left", "right"):
        here = [c for c in curves if c.side == side]
        finite = [v for c in here for v in c.values if math.isfinite(v)]
        if not finite:
            continue
        scale = ticks(min(finite), max(finite))
        low, high = scale[0], scale[-1]
        if low == high:  # the two sides at different heights: of two points in one place one is hidden
            low, high = (low - 0.5, low + 1.0) if side == "left" else (low - 1.0, low + 0.5)

        def y_of(value: float, low: float = low, high: float = high) -> float:
            return TOP + plot_height * (1 - (value - low) / (high - low))

        for value in scale:
            y = y_of(value)
            if side == "left":
                marks.append(Line(((LEFT, y), (WIDTH - RIGHT, y)), GRID))
                marks.append(Text(LEFT - 8, y + 4, f"{value:.4g}", "end", here[0].color))
            else:
                marks.append(Text(WIDTH - RIGHT + 8, y + 4, f"{value:.4g}", "start", here[0].color))
        for curve in here:
            points = tuple((x_of(i + 1), y_of(v)) for i, v in enumerate(curve.values) if math.isfinite(v))
            marks.append(Line(points, curve.color, 2.0))
            marks += [Dot(x, y, curve.color) for x, y in points]
            marks.append(Text(place, TOP + 14, curve.label, "start", curve.color))
            place += 16 + 8 * len(curve.label)
    corners = ((LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP))
    marks.append(Line(corners, INK))
    return marks


def _epoch_labels(epochs: int) -> list[int]:
    """The epochs that are named under the axis: the first, the last, and round ones not too near to the last."""
    round_ones = ticks(1, max(2, epochs), 10)
    clear = epochs - (round_ones[1] - round_ones[0]) / 2
    return sorted({1, max(1, epochs), *(round(t) for t in round_ones if 1 < t < clear)})


def to_svg(title: str, curves: Sequence[Curve]) -> str:
    """The plot as an SVG document."""
    body: list[str] = []
    for mark in draw(title, curves):
        if isinstance(mark, Line):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            pen = f'stroke="{mark.color}" stroke-width="{mark.width:g}"'
            body.append(f'<polyline points="{points}" fill="none" {pen}/>')
        elif isinstance(mark, Dot):
            body.append(f'<circle cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{RADIUS}" fill="{mark.color}"/>')
        else:
            where = f'x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{mark.anchor}" fill="{mark.color}"'
            body.append(f"<text {where}>{escape(mark.text)}</text>")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
    style = 'font-family="sans-serif" font-size="13">'
    return "\n".join([head + style, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"]) + "\n"


def _write_png(path: Path, title: str, curves: Sequence[Curve]) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for mark in draw(title, curves):
        if isinstance(mark, Line):
            if len(mark.points) > 1:
                pen.line(mark.points, fill=mark.color, width=round(mark.width), joint="curve")
        elif isinstance(mark, Dot):
            corners = (mark.x - RADIUS, mark.y - RADIUS, mark.x + RADIUS, mark.y + RADIUS)
            pen.ellipse(corners, fill=mark.color)
        else:
            pen.text((mark.x, mark.y), mark.text, fill=mark.color, anchor=anchors[mark.anchor])
    image.save(path, format="PNG")


def check_path(path: Path) -> None:
    """Raise a usage error now for what would fail after training: the format, the folder."""
    if path.suffix not in (".svg", ".png"):
        raise click.UsageError(f"--plot {path}: the name must end in .svg or .png")
    if not path.parent.is_dir():
        raise click.UsageError(f"--plot {path}: there is no folder {path.parent}")


def write_plot(path: Path, title: str, curves: Sequence[Curve]) -> None:
    """Write the plot in the format that the file's name asks for."""
    try:
        if path.suffix == ".png":
            _write_png(path, title, curves)
        else:
            path.write_text(to_svg(title, curves), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write the plot {path}: {error.strerror}") from error
