"""Comparing results, and the numbers of the page, on made-up measurements."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.plots import Series, bars
from benchmarks.report import page, plots
from benchmarks.results import Results, Row
from benchmarks.session import disagreement
from benchmarks.workload import difference, digest
from benchmarks.workloads import workloads


def row() -> Row:
    made = Row("sum", "Vectors", 1, "f32", flops=1e6, bytes=8e6)
    made.median_s = {"graphc": 4e-3, "graphc-compiled": 1e-3, "torch": 3e-3, "numpy": 2e-3}
    made.failures = {"jax": "differs from torch: result 0: mean 1 instead of 2"}
    made.copy_s, made.peak_flops = 0.5e-3, 1e10
    return made


def test_ratios_and_the_roofline() -> None:
    made = row()
    assert (made.ours(), made.best_peer()) == ("graphc-compiled", "numpy")
    assert made.faster("graphc-compiled", "torch") == pytest.approx(3)
    assert made.faster("graphc", "jax") is None
    # 0.1 ms of arithmetic, 0.5 ms of copying, done in 1 ms.
    assert made.bound() == (0.5e-3, "memory")
    assert made.share("graphc-compiled") == pytest.approx(0.5)


def test_page_and_plots() -> None:
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "revision": "commit 1"}
    results = Results(machine, {"rounds": 1, "seconds": 0.1}, versions={"torch": "2", "jax": "0"}, rows=[row()])
    results.rows[0].setting = {"torch": "channels_last"}
    results.left_out = {"tinygrad": "No module named 'tinygrad'"}
    text = page(results)
    (line,) = [line for line in text.splitlines() if line.startswith("| sum ") and "memory" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["sum", "4000", "1000", "3000", "failed", "2000", "2.00", "3.00", "memory", "50 %", "25 %"]
    assert "channels_last (1 times)" in text and "- sum, 1 thread, jax: differs from torch" in text
    assert "Left out: tinygrad (No module named 'tinygrad')" in text
    assert "10 GFLOP/s in f32 with 1 thread, 16.0 GB/s copying 4 MB with 1 thread" in text
    assert set(plots(results)) == {"vectors-ratio.svg", "vectors-roofline.svg"}


def test_targets_tell_what_is_missed() -> None:
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "revision": "commit 1"}
    results = Results(machine, {"rounds": 1, "seconds": 0.1}, rows=[row()], imports={"graphc": 0.05})
    results.first_steps = {"lenet-train-b64": {"graphc-compiled": {"cold": 1.2, "cached": 0.1}}}
    results.busy_core = {"lenet-train-b64": {"graphc": 1.5, "graphc-compiled": 3.25, "torch": 9.0}}
    text = page(results)
    assert "| 1 of 1 | 2.00 (sum/1) |" in " ".join(text.split())
    assert "one CPU is busy, to one alone, 3 times: lenet-train-b64, graphc-compiled 3.25 times." in text
    assert "| times longer    | graphc | graphc-compiled | torch |" in text and "9.00 |" in text
    assert "- the same, of a plain copy, 90 %: sum/1 50 %." in text
    assert "- first LeNet step, empty cache, 1 s: lenet-train-b64 1.2 s." in text
    assert "- sum, dot and norm read memory at 50 to 50 % of the speed of a copy," in text
    assert "Picking rows" not in text and "Products of 16" not in text
    assert "filled cache, 0.1 s:" not in text and "import, over NumPy's, 60 ms:" not in text


def test_what_the_machine_would_reach_stands_beside_what_is_missed() -> None:
    """A peer takes 2000, the copy 500 us: four times is what memory gives. What is already beyond it has no limit."""
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "revision": "commit 1"}
    slow = dataclasses.replace(row(), workload="norm", median_s={**row().median_s, "graphc-compiled": 1.6e-3})
    beyond = dataclasses.replace(slow, workload="dot", copy_s=1.9e-3)
    text = page(Results(machine, {"rounds": 1, "seconds": 0.1}, rows=[slow, beyond]))
    assert "to the best peer, 1.50: norm/1 1.25 (at most 4.00), dot/1 1.25." in text
    assert text.index("would reach is in parentheses") < text.index("(at most 4.00)")


def test_results_are_read_back_and_rows_replaced() -> None:
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "revision": "commit 1"}
    dot = Row("dot", "Vectors", 1, "f32", 1, 1, revision="commit 1")
    results = Results(machine, {"rounds": 1, "seconds": 0.1}, rows=[row(), dot])
    again = Results.read(json.dumps(dataclasses.asdict(results)))
    assert again == results
    newer = dataclasses.replace(row(), revision="commit 2")
    again.add(newer)
    assert [(r.workload, r.revision) for r in again.rows] == [("sum", "commit 2"), ("dot", "commit 1")]
    assert "Measured at commit 2. dot: commit 1." in page(again)
    for text in ("[]", "{}", '{"rows": [{"workload": "sum"}]}'):
        with pytest.raises(ValueError, match="no results of this benchmark"):
            Results.read(text)


def test_bars_start_at_the_origin_and_skip_what_is_missing() -> None:
    drawing = bars("t & u", ["a", "b", "c"], [Series("one", [2.0, None, 0.5])])
    # The background and two bars, which share an end: the one's left, the other's right.
    rects = [line for line in drawing.splitlines() if "<rect x=" in line]
    assert len(rects) == 2 and "t &amp; u" in drawing
    starts = [float(line.split('x="')[1].split('"')[0]) for line in rects]
    widths = [float(line.split('width="')[1].split('"')[0]) for line in rects]
    assert starts[0] == pytest.approx(starts[1] + widths[1], abs=0.2)
    assert widths[0] == pytest.approx(widths[1], abs=0.2)


def test_differences_are_found() -> None:
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    same, wanted = digest(x + np.float32(1e-7)), digest(x)
    assert difference(same, wanted, 1e-5) == ""
    assert "shape" in difference(digest(x[:-1]), wanted, 1e-5)
    assert "mean" in difference(digest(x + 1), wanted, 1e-5)
    assert "element" in difference(digest(x[::-1].copy()), wanted, 1e-5)
    assert "root mean square" in difference(digest(x * np.nan), wanted, 1e-5)
    flipped = x.copy()
    flipped[0] += 0.1
    assert "element" in difference(digest(flipped), wanted, 0.02)
    assert difference(digest(flipped), wanted, 0.02, moved=True) == ""
    assert "differences" in difference(digest(x[::-1].copy()), wanted, 1e-2, moved=True)
    assert difference(digest(x[::-1].copy()), wanted, 1e-5, random=True) == ""
    assert "zeros" in difference(digest(np.where(x > 0.5, 0, x)), wanted, 1e-5, random=True)


def test_weights_are_compared_but_not_under_adamw() -> None:
    every = workloads(tiny=True)
    losses, moved, other = digest(np.array([2.0, 1.0])), digest(np.ones(3)), digest(np.zeros(3))
    sgd, adamw = every["mlp-train-b3"], every["transformer-train-b2"]
    assert "result 1" in disagreement(sgd, [losses, other], [losses, moved])
    assert disagreement(sgd, [losses, moved], [losses, moved]) == ""
    assert disagreement(adamw, [losses, other], [losses, moved]) == ""
    assert "1 results instead of 2" in disagreement(sgd, [losses], [losses, moved])
