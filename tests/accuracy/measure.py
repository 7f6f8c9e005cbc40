"""Write docs/ulp.md and tests/accuracy/references.json: the largest error of each function of one or two floats.

Run it with a Python that has PyTorch and mpmath: python -m tests.accuracy.measure

f32: arguments are compared with PyTorch's f64 functions, and those that seem worst once more with mpmath (200 bits and
more). f64: all arguments are compared with mpmath.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
import torch

import graphc
import graphc.nn.functional
from graphc.codegen.llvm.host import host_target
from tests.accuracy.functions import FUNCTIONS, Function, arguments
from tests.accuracy.references import PAGE, REFERENCES, Reference, Worst, exact_pair, page
from tests.codegen.kernel_interpreter import ulp_error

mp = mpmath.mp
BLOCK = 1 << 18
COUNTS = {np.float32: 1 << 22, np.float64: 6000}
CANDIDATES = 48  # arguments of a system that seem worst, which are looked at with mpmath
KEPT = 24  # arguments that the test tries: the worst ones, and as many others


def _erfinv(x: Any) -> Any:
    """Newton's method from PyTorch's value: each step doubles the digits."""
    y = mp.mpf(torch.erfinv(torch.tensor(float(x), dtype=torch.float64)).item())
    for _ in range(5):
        y -= (mp.erf(y) - x) * mp.exp(y * y) * mp.sqrt(mp.pi) / 2
    return y


def _ndtri(p: Any) -> Any:
    """Likewise."""
    y = mp.mpf(torch.special.ndtri(torch.tensor(float(p), dtype=torch.float64)).item())
    for _ in range(5):
        y -= (mp.erfc(-y / mp.sqrt(2)) / 2 - p) * mp.exp(y * y / 2) * mp.sqrt(2 * mp.pi)
    return y


def _gelu(x: Any) -> Any:
    return x * mp.erfc(-x / mp.sqrt(2)) / 2


def _softplus(x: Any) -> Any:
    return mp.log1p(mp.exp(x))


EXACT: dict[str, Callable[..., Any]] = {
    **{n: getattr(mp, n) for n in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos")},
    **{n: getattr(mp, n) for n in ("atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc")},
    **{n: getattr(mp, n) for n in ("digamma", "atan2", "hypot")},
    "exp2": lambda x: mp.power(2, x),
    "log2": lambda x: mp.log(x) / mp.log(2),
    "log10": lambda x: mp.log(x) / mp.log(10),
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "erfinv": _erfinv,
    "lgamma": mp.loggamma,
    "i0": lambda x: mp.besseli(0, x),
    "i1": lambda x: mp.besseli(1, x),
    "ndtri": _ndtri,
    "gelu": _gelu,
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "softplus": _softplus,
    "logsigmoid": lambda x: -_softplus(-x),
    "mish": lambda x: x * mp.tanh(_softplus(x)),
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "pow": mp.power,
    "logaddexp": lambda x, y: mp.log(mp.exp(x) + mp.exp(y)),
}


def exact(function: Function, xs: Sequence[float]) -> Any:
    """The value at `xs`, to 300 bits less what cancels."""
    with mpmath.workprec(300):
        return EXACT[function.name](*(mpmath.mpf(float(x)) for x in xs))


def exact_array(function: Function, xs: list[np.ndarray]) -> np.ndarray:
    """The exact values in 80-bit floats."""
    pairs = [exact_pair(exact(function, x)) for x in zip(*xs, strict=True)]
    return np.array([np.longdouble(hi) + np.longdouble(lo) for hi, lo in pairs])


def largest(errors: np.ndarray) -> np.ndarray:
    """Places of the CANDIDATES largest errors."""
    return np.argpartition(-errors, CANDIDATES)[:CANDIDATES]


def by_blocks(run: Callable[..., np.ndarray], xs: list[np.ndarray]) -> np.ndarray:
    """`run` over blocks of one length, so that one program serves them all."""
    count = len(xs[0])
    size = min(BLOCK, count)
    made = []
    for start in range(0, count, size):
        block = [np.resize(x[start : start + size], size) for x in xs]
        made.append(run(*block))
    return np.concatenate(made)[:count]


def systems(function: Function) -> dict[str, Callable[..., np.ndarray]]:
    """How each system computes the function over arrays."""
    found: dict[str, Callable[..., np.ndarray]] = {
        "graphc": lambda *xs: np.array(function.call(graphc, *(graphc.tensor(x) for x in xs)).numpy()),
        "PyTorch": lambda *xs: function.call(torch, *(torch.from_numpy(x) for x in xs)).numpy(),
    }
    if function.numpy is not None:
        numpy = function.numpy
        found["NumPy"] = lambda *xs: numpy(*xs).astype(xs[0].dtype)
    return found


def measure(function: Function, dtype: type[np.floating]) -> Reference:
    """The worst errors of all systems, and arguments for the test."""
    rng = np.random.default_rng(len(function.name) + ord(function.name[0]))
    xs = arguments(function, dtype, COUNTS[dtype], rng)
    with np.errstate(all="ignore"):
        results = {name: by_blocks(run, xs) for name, run in systems(function).items()}
    if dtype is np.float64:
        wanted = exact_array(function, xs)
        places = {name: largest(ulp_error(got, wanted)) for name, got in results.items()}
    else:
        wide = function.call(torch, *(torch.from_numpy(x.astype(np.float64)) for x in xs)).numpy()
        places = {name: largest(ulp_error(got, wide)) for name, got in results.items()}
    worst: dict[str, Worst] = {}
    kept: list[int] = []
    for name, got in results.items():
        at = places[name]
        errors = ulp_error(got[at], exact_array(function, [x[at] for x in xs]))
        first = int(np.argmax(errors))
        worst[name] = Worst(float(errors[first]), [float(x[at[first]]) for x in xs])
        if name == "graphc":
            kept = [int(i) for i in at[np.argsort(-errors)][:KEPT]]
    kept += [int(i) for i in rng.choice(len(xs[0]), KEPT, replace=False)]
    tried = [[float(x[i]) for x in xs] for i in kept]
    return Reference(worst, tried, [exact_pair(exact(function, x)) for x in tried], len(xs[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only these functions (comma separated)")
    only = set(filter(None, parser.parse_args().only.split(",")))
    torch.set_num_threads(1)
    known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
    for function in FUNCTIONS:
        if only and function.name not in only:
            continue
        for dtype, name in ((np.float32, "f32"), (np.float64, "f64")):
            found = measure(function, dtype)
            known[f"{function.name} {name}"] = found.as_json()
            print(function.name, name, {k: round(w.error, 3) for k, w in found.worst.items()}, flush=True)
        REFERENCES.write_text(json.dumps(known, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    about = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": host_target().cpu,
        "f32": f"{COUNTS[np.float32]:,}",
        "f64": f"{COUNTS[np.float64]:,}",
    }
    PAGE.write_text(page(known, about), encoding="utf-8")


if __name__ == "__main__":
    main()
