"""What is measured on a CUDA device: training steps, kernels over 256 M floats, products, attention."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import networks
from benchmarks.networks.parts import jax_layer_norm
from benchmarks.workload import CUDA_SYSTEMS, HALVES, Arrays, Workload, normal, uniform
from benchmarks.workloads import training

STEPS, LONG, PRODUCTS = "Training steps on CUDA", "256 M floats on CUDA", "Matrix products on CUDA"
ATTENTION = "Attention on CUDA"
# Relative to the root mean square of a product's elements: what rounding to the type, and TF32's, leaves.
CLOSE = {"f32": 1e-4, "tf32": 5e-3, "f16": 5e-3, "bf16": 3e-2}


def _steps(tiny: bool) -> list[Workload]:
    made: list[Workload] = []
    for batch in (2,) if tiny else (4, 64, 512, 4096):
        made.append(training.work(networks.lenet(), STEPS, batch, True, 2e-3))
    others = [(networks.resnet18((4, 8), 8), 2), (networks.transformer(1, 8, 2, 4, 11), 2)]
    if not tiny:
        others = [(networks.resnet18(), 128), (networks.transformer(), 32)]
    for network, batch in others:
        exact = training.work(network, STEPS, batch, True, 2e-3)
        loose = dataclasses.replace(exact, name=f"{exact.name}-tf32", dtype="tf32", tolerance=2e-2)
        made += [exact, loose, training.halved(exact)]
    return [dataclasses.replace(step, by_hand=False) for step in made]


def _cupy_softmax(cp: Any, x: Any) -> Any:
    powers = cp.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _cupy_layer_norm(cp: Any, x: Any, w: Any, b: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / cp.sqrt((x * x).mean(-1, keepdims=True) + cp.float32(1e-5)) * w + b


def _cupy_chain(cp: Any, a: Any, b: Any, c: Any) -> Any:
    return cp.maximum(a * b + c, 0) / (1 + cp.exp(b - a)) + cp.float32(0.5) * c


def _long(tiny: bool) -> list[Workload]:
    rows, width = (24, 32) if tiny else (1 << 18, 1 << 10)
    n = rows * width

    def matrix() -> Arrays:
        return {"x": uniform(1, rows, width)}

    return [
        Workload(
            name="chain",
            section=LONG,
            inputs=lambda: {"a": uniform(1, n), "b": uniform(2, n), "c": uniform(3, n)},
            flops=10.0 * n,
            bytes=16.0 * n,
            torch=lambda t, a, b, c: t.F.relu(a * b + c) * t.torch.sigmoid(a - b) + 0.5 * c,
            jax=lambda j, a, b, c: j.nn.relu(a * b + c) * j.nn.sigmoid(a - b) + 0.5 * c,
            cupy=_cupy_chain,
            tolerance=1e-5,
        ),
        Workload(
            name="softmax",
            section=LONG,
            inputs=matrix,
            flops=5.0 * n,
            bytes=8.0 * n,
            torch=lambda t, x: t.F.softmax(x, -1),
            jax=lambda j, x: j.nn.softmax(x),
            cupy=_cupy_softmax,
        ),
        Workload(
            name="layer-norm",
            section=LONG,
            inputs=lambda: {**matrix(), "w": normal(2, width), "b": normal(3, width)},
            flops=8.0 * n,
            bytes=8.0 * n,
            torch=lambda t, x, w, b: t.F.layer_norm(x, (width,), w, b),
            jax=jax_layer_norm,
            cupy=_cupy_layer_norm,
        ),
        Workload(
            name="sum",
            section=LONG,
            inputs=matrix,
            flops=1.0 * n,
            bytes=4.0 * n,
            torch=lambda t, x: x.sum(),
            jax=lambda j, x: x.sum(),
            cupy=lambda cp, x: x.sum(),
            tolerance=1e-3,
        ),
        Workload(
            name="row-sum",
            section=LONG,
            inputs=matrix,
            flops=1.0 * n,
            bytes=4.0 * (n + rows),
            torch=lambda t, x: x.sum(1),
            jax=lambda j, x: x.sum(1),
            cupy=lambda cp, x: x.sum(1),
        ),
        Workload(
            name="column-sum",
            section=LONG,
            inputs=matrix,
            flops=1.0 * n,
            bytes=4.0 * (n + width),
            torch=lambda t, x: x.sum(0),
            jax=lambda j, x: x.sum(0),
            cupy=lambda cp, x: x.sum(0),
            tolerance=1e-3,
        ),
    ]


def _product(n: int, dtype: str) -> Workload:
    size = 2 if dtype in ("f16", "bf16") else 4

    def compute(_: Any, x: Any, y: Any) -> Any:
        return x @ y

    return Workload(
        name=f"matmul-{dtype}-n{n}",
        section=PRODUCTS,
        inputs=lambda: {"a": normal(1, n, n), "b": normal(2, n, n)},
        flops=2.0 * n**3,
        bytes=3.0 * size * n * n,
        torch=compute,
        jax=compute,
        cupy=None if dtype == "bf16" else compute,
        dtype=dtype,
        tolerance=CLOSE[dtype],
    )


def _attention(tiny: bool) -> list[Workload]:
    """Of heads of 64; products that a mask leaves out do not count."""
    batch, heads, words, size = (1, 2, 16, 8) if tiny else (8, 12, 1024, 64)
    product = 2.0 * batch * heads * words * words * size

    def form(is_causal: bool) -> Any:
        return lambda t, q, k, v: t.F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    def jax_form(is_causal: bool) -> Any:
        def compute(j: Any, *operands: Any) -> Any:
            turned = (x.swapaxes(1, 2) for x in operands)
            return j.nn.dot_product_attention(*turned, is_causal=is_causal).swapaxes(1, 2)

        return compute

    def inputs(names: str) -> Arrays:
        return {name: normal(seed, batch, heads, words, size) for seed, name in enumerate(names)}

    forward = Workload(
        name="attention-bf16",
        section=ATTENTION,
        inputs=lambda: inputs("qkv"),
        flops=2 * product,
        bytes=8.0 * batch * heads * words * size,
        torch=form(False),
        jax=jax_form(False),
        dtype="bf16",
        tolerance=CLOSE["bf16"],
    )
    causal = dataclasses.replace(
        forward, name="attention-causal-bf16", flops=product, torch=form(True), jax=jax_form(True)
    )
    gradients = dataclasses.replace(
        causal,
        name="attention-causal-grad-bf16",
        inputs=lambda: inputs("qkvg"),
        flops=3.5 * product,
        bytes=2 * forward.bytes,
        gradients=("q", "k", "v"),
    )
    return [forward, causal, gradients]


def workloads(tiny: bool) -> list[Workload]:
    """All of them."""
    sizes = (16,) if tiny else (512, 1024, 2048, 4096, 8192)
    products = [_product(n, dtype) for dtype in CLOSE for n in sizes]
    made = [*_steps(tiny), *_long(tiny), *products, *_attention(tiny)]
    return [dataclasses.replace(work, only=_systems(work)) for work in made]


def _systems(work: Workload) -> tuple[str, ...]:
    """Networks run in 16 bits under `autocast`, which the systems like PyTorch have."""
    mixed = work.network is not None and work.dtype in HALVES
    return tuple(name for name in CUDA_SYSTEMS if not (mixed and name in ("jax", "cupy")))
