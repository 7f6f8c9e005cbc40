"""`graphc profile`: every kernel of a program with its time, and the memory plan."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from graphc.cli import profile
from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import make_artifact
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, bf16, boolean, f16, f32, f64, i64
from graphc.pipeline import build_program
from graphc.profiling import profile_graph, random_inputs
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.cli.running import ROOT, run

LENET = f"{ROOT / 'examples' / 'lenet.py'}:Net"


def _graph() -> Graph:
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (40, 40))) for i in range(2))
    product = b.contract(x, y, "a b, b c -> a c")
    return Graph((x, y), (b.reduce_sum(b.exp(product), (1,)), product), "twice")


def test_profile_of_a_network() -> None:
    done = run("profile", LENET, "--args", "x=f32[4,1,32,32]", "--grad", "--runs", "3", "--threads", "1", "--top", "2")
    assert done.exit_code == 0, done.stderr
    assert "@Net:" in done.stdout and "GFLOP/s" in done.stdout and "contract" in done.stdout
    assert "lenet.py:" in done.stdout and "more steps" in done.stdout
    assert "1 thread, median of 3 runs" in done.stderr


def test_the_rows_of_a_profile_add_up_to_its_run(tmp_path: Path) -> None:
    file = tmp_path / "twice.gir"
    file.write_text(str(_graph()))
    done = run("profile", str(file), "--runs", "1", "--top", "1")
    assert "median of 1 run\n" in done.stderr
    steps = len(build_program(_graph()).steps)
    whole = re.search(rf"@twice: ([\d.]+) us a run, {steps} steps?$", done.stdout, re.MULTILINE)
    rows = re.findall(r"^ +(\d+\.\d\d)  +[\d.]+%", done.stdout, re.MULTILINE)
    assert whole and "outside the kernels" in done.stdout
    assert sum(map(float, rows)) == pytest.approx(float(whole[1]), abs=0.02)


def test_what_does_not_fit_into_memory_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "large.gir"
    file.write_text("graph @large(%x: f32[4000000000000]) {\n  %1 = neg %x : f32[4000000000000]\n  return %1\n}\n")
    done = run("profile", str(file))
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith(
        "Error: @large needs 32,000,000,000,000 bytes, 16,000,000,000,000 of them for its inputs"
    )
    assert len(done.stderr.splitlines()) == 1


def test_memory_that_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(profile, "profile_graph", refused)
    file = tmp_path / "twice.gir"
    file.write_text(str(_graph()))
    done = run("profile", str(file))
    assert done.exit_code == 1 and done.stderr == "Error: there is not enough memory\n"


def test_inputs_are_drawn_in_their_own_dtype() -> None:
    b = Builder()
    types = [TensorType(d, (1 << 18,)) for d in (f64, f32, f16, bf16, i64, boolean)]
    inputs = tuple(b.input(i, type) for i, type in enumerate(types))
    buffers = random_inputs(Graph(inputs, inputs, "all"), 0)
    assert [buffer.nbytes for buffer in buffers] == [type.nbytes for type in types]
    floats = [b.view(t.dtype.numpy, t.shape).astype(np.float64) for b, t in zip(buffers, types, strict=True)][:4]
    assert all(abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02 for values in floats)
    x = Builder().input(0, TensorType(f32, (1 << 20,)))
    tracemalloc.start()
    random_inputs(Graph((x,), (x,), "one"), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9 << 20  # the array and its copy, 4 MiB each


def test_profile_as_json_counts_every_launch(tmp_path: Path) -> None:
    file = tmp_path / "twice.gir"
    file.write_text(str(_graph()))
    done = run("profile", str(file), "--runs", "2", "--json")
    (profile,) = json.loads(done.stdout)["profiles"]
    assert profile["name"] == "twice" and profile["input_bytes"] == 2 * 40 * 40 * 4
    program = build_program(_graph())
    assert [step["kernel"] for step in profile["steps"]] == [record.kernel for record in program.records]
    assert all(step["seconds"] > 0 for step in profile["steps"])
    assert sum(step["flops"] for step in profile["steps"]) >= 2 * 40**3


def test_the_memory_plan_is_shown_when_it_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "twice.gir"
    file.write_text(str(_graph()))
    assert "// arena" not in run("profile", str(file), "--runs", "1").stdout
    shown = run("profile", str(file), "--runs", "1", "--memory").stdout
    assert "// arena" in shown and "output 1, 6400 bytes" in shown


def test_wrong_requests(tmp_path: Path) -> None:
    file = tmp_path / "twice.gir"
    file.write_text(str(_graph()))
    done = run("profile", str(file), "--args", "x=f32[1]")
    assert done.exit_code == 2 and "--args belongs to" in done.stderr
    with pytest.raises(ValueError, match="at least one run"):
        profile_graph(_graph(), 0)


def test_a_clocked_program_computes_the_same() -> None:
    graph, target = _graph(), host_target()
    program = build_program(graph, target=target)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.shape).astype(np.float32) / 8 for n in graph.inputs]
    artifact = make_artifact(program, target, {}, clock=True)
    *results, clock = Executable(artifact, get_device("cpu")).run([Buffer.from_array(a) for a in arrays])
    for node, got, expected in zip(graph.outputs, results, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got.view(np.float32, node.shape), expected, rtol=1e-5, atol=1e-6)
    ticks = clock.view(np.int64, (len(program.steps) + 1,))
    assert (np.diff(ticks) > 0).all()


def test_the_clock_of_other_machines_is_read_without_the_cycle_counter() -> None:
    target = Target("aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, True, 32 << 10, 512 << 10, 1)
    artifact = make_artifact(build_program(_graph(), target=target), target, {}, clock=True)
    assert artifact.outputs[-1].dtype == "i64"
