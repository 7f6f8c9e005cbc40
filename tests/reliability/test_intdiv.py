"""Row 8 of the reliability goals: integer `//` and `%` at every pair of edges and signs, for three kinds of divisor.

The divisions run in a child process, since what is to be excluded is its death (SIGFPE). Results are those of NumPy:
0 where the divisor is 0, and the smallest integer // -1 wraps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from graphc.compiled import compile_graph
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, dtype_by_name
from graphc_runtime.buffer import Buffer

DTYPES = ("i8", "i16", "i32", "i64", "u8")
KINDS = ("constant", "scalar", "tensor")
OPERATORS = ("floor_divide", "remainder")
ROOT = Path(__file__).parents[2]


def edges(dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    values = {info.min, info.min + 1, info.max - 1, info.max, 0, 1, 2, 3, 7, 10, 100}
    values |= {-v for v in (1, 2, 3, 7, 10, 100) if info.min < 0}
    return np.array(sorted(values), dtype.numpy)


def divide(name: str, dtype: DType) -> dict[str, np.ndarray]:
    """`x op y` for all pairs of edges, one row per divisor, for each kind of divisor; the whole compiler is in use."""
    values = edges(dtype)
    pair = TensorType(dtype, (values.size, values.size))
    b = Builder()
    x, y = b.input(0, pair, "x"), b.input(1, pair, "y")
    scalar = b.input(2, TensorType(dtype, ()), "s")
    outputs = [b.elementwise(name, x, y), b.elementwise(name, x, b.broadcast(scalar, pair.shape))]
    outputs += [b.elementwise(name, x, int(v)) for v in values]
    run = compile_graph(Graph((x, y, scalar), tuple(outputs))).run
    both = np.meshgrid(values, values)
    buffers = [Buffer.from_array(np.ascontiguousarray(a)) for a in both]
    rounds = [[r.array.view(dtype.numpy) for r in run([*buffers, Buffer.from_array(v.reshape(()))])] for v in values]
    shaped = [[a.reshape(pair.shape) for a in r] for r in rounds]
    return {
        "tensor": shaped[0][0],
        "scalar": np.stack([r[1][0] for r in shaped]),
        "constant": np.stack([a[0] for a in shaped[0][2:]]),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, np.ndarray]:
    """What the child process computed: `dtype.operator.kind`."""
    folder = tmp_path_factory.mktemp("child")
    command = [sys.executable, "-m", "tests.reliability.test_intdiv", str(folder / "results.npz")]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}", "PATH": "", "HOME": str(folder)}
    environment["GRAPHC_TARGET"] = os.environ.get("GRAPHC_TARGET", "")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"in {done.stdout.split()[-1:]}: {done.stderr}"
    with np.load(folder / "results.npz") as found:
        return dict(found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_process_dies_and_results_are_numpys(dtype: str, results: Mapping[str, np.ndarray]) -> None:
    x, y = np.meshgrid(edges(dtype_by_name(dtype)), edges(dtype_by_name(dtype)))
    for operator in OPERATORS:
        with np.errstate(all="ignore"):
            expected = getattr(np, operator)(x, y)
        for kind in KINDS:
            got = results[f"{dtype}.{operator}.{kind}"]
            wrong = np.argwhere(got != expected)
            assert not wrong.size, [(operator, kind, x[*i], y[*i], got[*i], expected[*i]) for i in wrong[:5]]


def main() -> None:
    """The child process."""
    results = {}
    for dtype in DTYPES:
        print(dtype, flush=True)
        for operator in OPERATORS:
            made = divide(operator, dtype_by_name(dtype))
            results |= {f"{dtype}.{operator}.{kind}": rows for kind, rows in made.items()}
    np.savez(sys.argv[1], **results)


if __name__ == "__main__":
    main()
