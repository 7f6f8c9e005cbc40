"""What a workload is: one record, which every system that can do it computes in its own form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
# A form gets the system's own modules (see `benchmarks.systems`) and the inputs in their order; NumPy's only these.
Form = Callable[..., Any]

# All systems, ours first.
OURS = ("graphc", "graphc-compiled")
# What is no peer but a yardstick: one function of C, with one thread.
BY_HAND = "by-hand"
SYSTEMS = (*OURS, "torch", "torch-compile", "jax", "tinygrad", "numpy", "numexpr", BY_HAND)
# What operands of products are converted to, by the workload's dtype; of networks, what autocast computes in.
HALVES = {"f16": "float16", "bf16": "bfloat16"}
# Those that are measured on a CUDA device.
CUDA_SYSTEMS = (*OURS, "torch", "torch-compile", "torch-graphs", "jax", "cupy")
# Results are summed up piece by piece: their float64 copies would count as memory of the system.
CHUNK = 1 << 16
# Turns before the first timed one, where plain code runs that graphc learns while it runs.
LONG_WARM = 30


@dataclass(frozen=True)
class Parameter:
    """How an initial weight is drawn: U(middle - spread, middle + spread) in float32."""

    shape: tuple[int, ...]
    spread: float = 0.0
    middle: float = 0.0


@dataclass(frozen=True)
class Network:
    """A network in every form.

    `module(lib)` is the PyTorch-shaped module, whose state has the names of `parameters` and `buffers`;
    `jax(j, weights, x, training)` gives logits and the buffers that changed; `tinygrad(tg, weights, x)` gives logits
    and reads `Tensor.training`; `numpy(weights, x)` is inference. Logits are `[..., classes]`, labels the same without
    the last axis; the loss is the mean cross-entropy. `forward_flops(batch)` counts a multiply-add as two.
    """

    name: str
    parameters: Mapping[str, Parameter]
    module: Callable[[Any], Any]
    jax: Form
    tinygrad: Form
    samples: Callable[[np.random.Generator, int], Arrays]
    forward_flops: Callable[[int], float]
    # Those of the layer at the images or vectors, which get no gradient.
    first_flops: Callable[[int], float] = lambda batch: 0.0
    buffers: Mapping[str, Parameter] = field(default_factory=dict)
    numpy: Form | None = None
    optimizer: str = "sgd"
    rate: float = 0.01

    def weights(self) -> Arrays:
        """The initial parameters and buffers, the same for all systems."""
        rng = np.random.default_rng(0)
        drawn: Arrays = {}
        for name, p in {**self.parameters, **self.buffers}.items():
            drawn[name] = rng.uniform(p.middle - p.spread, p.middle + p.spread, p.shape).astype(np.float32)
        return drawn

    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(4 * math.prod(p.shape) for p in self.parameters.values())


@dataclass(frozen=True)
class Workload:
    """One thing to measure: either `network` (a training step or an inference) or a function in the forms.

    Forms are forward computations. With `gradients` (names of inputs) the systems that differentiate also compute the
    gradients of the sum of result times `g`, the last input, which the forms do not get. `flops` and `bytes` are what
    cannot be avoided: arithmetic by formula, inputs read once and results written once. `tolerance` is relative to the
    root mean square of each result; `random` results are compared by their share of zeros and their mean only. Times
    are divided by `per`; with `observe` off, results are never looked at. `only` names the systems that take part,
    `by_hand` says that the yardstick does. Before they are timed, systems run for `warm` turns.
    """

    name: str
    section: str
    inputs: Callable[[], Arrays]
    flops: float
    bytes: float
    torch: Form | None = None
    jax: Form | None = None
    tinygrad: Form | None = None
    numpy: Form | None = None
    numexpr: str | None = None
    # Gets the module `cupy` and the inputs.
    cupy: Form | None = None
    # A NumPy form that is too slow to be measured, for the tests.
    reference: Form | None = None
    network: Network | None = None
    training: bool = False
    gradients: tuple[str, ...] = ()
    tolerance: float = 1e-4
    dtype: str = "f32"
    random: bool = False
    images: bool = False
    per: int = 1
    observe: bool = True
    only: tuple[str, ...] = SYSTEMS
    by_hand: bool = False
    warm: int = 1

    def form(self, system: str) -> Any:
        """The form that a system computes; None when this work is not for it."""
        if system == BY_HAND:
            return self.by_hand or None
        if system not in self.only:
            return None
        kind = "torch" if system in (*OURS, "torch-compile", "torch-graphs") else system
        if self.network is not None:
            if kind == "numpy" and self.training:
                return None
            return {"torch": self.network.module}.get(kind) or getattr(self.network, kind, None)
        if self.gradients and kind in ("numpy", "numexpr"):
            return None
        return getattr(self, kind)

    def operands(self) -> tuple[Arrays, np.ndarray | None]:
        """The inputs of the forms, and `g` where there are gradients."""
        arrays = self.inputs()
        return arrays, arrays.pop("g") if self.gradients else None


def digest(array: np.ndarray) -> dict[str, Any]:
    """What is compared of a result: its shape, mean, root mean square, share of zeros and 256 elements."""
    flat = np.asarray(array).reshape(-1)
    if flat.size == 0:
        return {"shape": list(np.shape(array)), "mean": 0.0, "rms": 0.0, "zeros": 0.0, "elements": []}
    total = squares = 0.0
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        total += float(part.sum())
        squares += float(part @ part)
    places = np.linspace(0, flat.size - 1, min(flat.size, 256)).astype(np.int64)
    return {
        "shape": list(np.shape(array)),
        "mean": total / flat.size,
        "rms": math.sqrt(squares / flat.size),
        "zeros": 1 - np.count_nonzero(flat) / flat.size,
        "elements": flat[places].astype(np.float64).tolist(),
    }


def difference(
    found: dict[str, Any], wanted: dict[str, Any], tolerance: float, random: bool = False, moved: bool = False
) -> str:
    """How two digests differ; empty when they agree.

    `random` numbers agree in their distribution. Of weights that `moved` along gradients the elements are judged
    together: a rounding error that crosses a kink, such as that of ReLU, changes single elements much.
    """
    if found["shape"] != wanted["shape"]:
        return f"shape {found['shape']} instead of {wanted['shape']}"
    if not math.isfinite(found["rms"]):
        return f"root mean square {found['rms']}"
    room = tolerance * wanted["rms"] + 1e-30
    if random:
        pairs = [
            ("share of zeros", found["zeros"], wanted["zeros"], tolerance),
            ("mean", found["mean"], wanted["mean"], room),
        ]
    else:
        elements = list(zip(found["elements"], wanted["elements"], strict=True))
        pairs = [(name, found[name], wanted[name], room) for name in ("mean", "rms")]
        if moved:
            apart = math.sqrt(sum((a - b) ** 2 for a, b in elements) / max(1, len(elements)))
            pairs.append(("root mean square of differences", apart, 0.0, room))
        else:
            pairs += [("element", a, b, room + tolerance * abs(b)) for a, b in elements]
    for name, a, b, allowed in pairs:
        if not abs(a - b) <= allowed:
            return f"{name} {a:.6g} instead of {b:.6g}"
    return ""


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)


def uniform(seed: int, *shape: int) -> np.ndarray:
    """Numbers in [0, 1), float32."""
    return np.random.default_rng(seed).random(shape, np.float32)
