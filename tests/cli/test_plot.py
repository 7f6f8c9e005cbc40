"""The curves that `--plot` writes."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from graphc.cli.plot import BOTTOM, HEIGHT, Curve, check_path, ticks, to_svg, write_plot

SVG = "{http://www.w3.org/2000/svg}"
CURVES = [
    Curve("loss <train>", [2.0, 1.0, 0.5, 0.25], "#c00000", "left"),
    Curve("accuracy", [0.1, 0.5, 0.9, 0.95], "#0000c0", "right"),
]


def points(svg: str, color: str) -> list[tuple[float, float]]:
    for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline"):
        if line.get("stroke") == color:
            pairs = [pair.split(",") for pair in str(line.get("points")).split()]
            return [(float(x), float(y)) for x, y in pairs]
    raise AssertionError(f"no line of colour {color}")


def test_svg_is_well_formed_and_shows_each_value() -> None:
    svg = to_svg("a & b", CURVES)
    texts = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "a & b" in texts and "loss <train>" in texts and "accuracy" in texts and "epoch" in texts
    loss, accuracy = points(svg, "#c00000"), points(svg, "#0000c0")
    assert len(loss) == len(accuracy) == 4
    assert [y for _, y in loss] == sorted(y for _, y in loss), "a falling curve falls: y grows downwards"
    assert [y for _, y in accuracy] == sorted((y for _, y in accuracy), reverse=True)
    assert [x for x, _ in loss] == [x for x, _ in accuracy] == sorted({x for x, _ in loss})


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5], [math.nan, 1.0, math.inf, 0.5]])
def test_odd_curves_make_a_plot(values: list[float]) -> None:
    svg = to_svg("t", [Curve("c", values, "#123456", "left")])
    assert "nan" not in svg and "inf" not in svg
    ElementTree.fromstring(svg)


def test_every_value_has_a_dot_also_those_of_a_single_epoch() -> None:
    for count in (1, 4):
        curves = [Curve(c.label, c.values[:count], c.color, c.side) for c in CURVES]
        dots = list(ElementTree.fromstring(to_svg("t", curves)).iter(f"{SVG}circle"))
        assert len(dots) == 2 * count
        places = {(dot.get("cx"), dot.get("cy")) for dot in dots}
        assert count > 1 or len(places) == 2, "one would hide the other"


@pytest.mark.parametrize("epochs", [1, 2, 15, 20, 31, 137])
def test_the_axis_of_epochs_ends_at_the_last_one(epochs: int) -> None:
    svg = to_svg("t", [Curve("c", [1.0 / (i + 1) for i in range(epochs)], "#123456", "left")])
    height = f"{HEIGHT - BOTTOM + 18:.1f}"
    labels = [t for t in ElementTree.fromstring(svg).iter(f"{SVG}text") if t.get("y") == height]
    assert [int(t.text or "") for t in labels] == sorted({int(t.text or "") for t in labels})
    assert labels[0].text == "1" and labels[-1].text == str(epochs)
    places = [float(t.get("x") or 0) for t in labels]
    assert all(b - a > 20 for a, b in pairwise(places))


def test_ticks_are_round_and_cover_the_range() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for low, high in ((0.0013, 2.31), (0.9, 0.99), (-3.0, 17.0), (1, 20)):
        found = ticks(low, high)
        assert found[0] <= low + 1e-9 and found[-1] >= high - 1e-9 and 3 <= len(found) <= 12


def test_names_are_checked_before_training(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"\.svg or \.png"):
        check_path(tmp_path / "curve.gif")
    with pytest.raises(click.UsageError, match="no folder"):
        check_path(tmp_path / "missing" / "curve.svg")
    check_path(tmp_path / "curve.svg")


def test_png_has_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    write_plot(path, "t", CURVES)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
